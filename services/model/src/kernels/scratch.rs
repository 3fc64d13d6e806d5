//! Memory for what lies between two kernels, used again and again.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// Pieces that a thread keeps. More than that may come to it from others.
const MOST_SPARE: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Numbers that hold whatever their last user left there: to be written before they are read.
pub(crate) struct Scratch {
    /// `length` of these are in use.
    numbers: Vec<f32>,
    length: usize,
}

impl Scratch {
    /// `length` numbers.
    pub(crate) fn new(length: usize) -> Self {
        let mut numbers = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        if numbers.len() < length {
            numbers.resize(length, 0.0);
        }
        Self { numbers, length }
    }

    /// `length` zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut zeros = Self::new(length);
        zeros.fill(0.0);
        zeros
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        // At the end of a thread there is nowhere to put it.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST_SPARE {
                spare.push(numbers);
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[..self.length]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_has_its_length() {
        std::thread::spawn(|| {
            let mut first = Scratch::zeros(5);
            first.fill(1.0);
            let place = first.as_ptr();
            drop(first);
            let second = Scratch::new(3);
            assert_eq!((second.as_ptr(), &*second), (place, [1.0; 3].as_slice()));
            drop(second);
            assert_eq!(*Scratch::zeros(7), [0.0; 7]);
            let many: Vec<Scratch> = (0..2 * MOST_SPARE).map(Scratch::new).collect();
            drop(many);
            assert_eq!(SPARE.with_borrow(Vec::len), MOST_SPARE);
        })
        .join()
        .unwrap();
    }
}
