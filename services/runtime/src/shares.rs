//! Places that callers share fairly.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Places that one caller may take for every free one: on its own it has four fifths of all, and leaves room for others however
/// much it sends. This is the dynamic threshold of Choudhury and Hahne, *Dynamic Queue Length Thresholds for Shared-Memory
/// Packet Switches* (1998).
pub const PLACES_PER_FREE_PLACE: usize = 4;

/// Places for calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places {
    all: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    of_all: usize,
    of_callers: HashMap<Arc<str>, usize>,
}

/// A caller's place, until this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    caller: Arc<str>,
}

/// No place for a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All are taken, by whomever.
    Taken,
    /// This caller has so many already, and the others are for others.
    Share(usize),
}

impl Places {
    /// So many places.
    #[must_use]
    pub fn new(all: usize) -> Self {
        Self { all, taken: Arc::default() }
    }

    /// Takes a place for `caller`, who may have `most` of them at a time, and fewer while others have many.
    ///
    /// # Errors
    /// If there is none.
    pub fn take(&self, caller: &Arc<str>, most: usize) -> Result<Place, Full> {
        let mut taken = self.taken();
        let free = self.all.saturating_sub(taken.of_all);
        if free == 0 {
            return Err(Full::Taken);
        }
        let of_caller = taken.of_callers.get(caller).copied().unwrap_or_default();
        if of_caller >= most.min(free.saturating_mul(PLACES_PER_FREE_PLACE)) {
            return Err(Full::Share(of_caller));
        }
        taken.of_all += 1;
        *taken.of_callers.entry(Arc::clone(caller)).or_default() += 1;
        Ok(Place { places: self.clone(), caller: Arc::clone(caller) })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.of_all -= 1;
        if let Some(of_caller) = taken.of_callers.get_mut(&self.caller) {
            *of_caller -= 1;
            // Who has none is forgotten: strangers cannot fill the table.
            if *of_caller == 0 {
                taken.of_callers.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(places: &Places, caller: &str, most: usize) -> (Vec<Place>, Full) {
        let mut taken = Vec::new();
        loop {
            match places.take(&caller.into(), most) {
                Ok(place) => taken.push(place),
                Err(full) => return (taken, full),
            }
        }
    }

    #[test]
    fn however_much_a_caller_takes_there_is_room_for_others() {
        let places = Places::new(100);
        let (greedy, full) = fill(&places, "greedy", usize::MAX);
        assert_eq!((greedy.len(), full), (80, Full::Share(80)));
        let (second, _) = fill(&places, "second", usize::MAX);
        assert_eq!(second.len(), 16);
        let (third, _) = fill(&places, "third", usize::MAX);
        assert_eq!(third.len(), 4);
        assert_eq!(places.take(&"fourth".into(), 1).unwrap_err(), Full::Taken);
        drop((greedy, third));
        assert_eq!(fill(&places, "second", usize::MAX).0.len(), 80 - 16);
    }

    #[test]
    fn nobody_takes_more_than_its_most_and_nobody_leaves_a_trace() {
        let places = Places::new(100);
        let (taken, full) = fill(&places, "one", 2);
        assert_eq!((taken.len(), full), (2, Full::Share(2)));
        assert!(places.take(&"other".into(), 1).is_ok());
        drop(taken);
        let left = places.taken();
        assert!(left.of_all == 0 && left.of_callers.is_empty());
    }
}
