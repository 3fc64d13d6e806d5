//! A track of any length as a bounded number of columns.

/// A column that takes in its right neighbour.
pub(crate) trait Merge {
    /// Takes in the column to the right.
    fn merge(&mut self, right: Self);
}

/// Columns of equal width. There is a greatest number of them: where more would come, each becomes twice as wide.
#[derive(Debug, Clone)]
pub(crate) struct Columns<T> {
    columns: Vec<T>,
    most: usize,
    /// Units in a column.
    width: u64,
    /// Units in the last column.
    in_last: u64,
}

impl<T: Merge> Columns<T> {
    /// No columns yet, and never more than `most`, a power of two.
    pub(crate) fn new(most: usize) -> Self {
        Self { columns: Vec::new(), most: most.max(2).next_power_of_two(), width: 1, in_last: 0 }
    }

    /// Takes the next unit.
    pub(crate) fn push(&mut self, unit: T) {
        self.push_some(1, unit);
    }

    /// How many more units fit into the last column.
    pub(crate) fn room(&mut self) -> u64 {
        if self.in_last == self.width {
            self.in_last = 0;
        }
        if self.in_last == 0 && self.columns.len() >= self.most {
            self.widen();
        }
        self.width - self.in_last
    }

    /// Takes the next `units` at once, at most [`Columns::room`].
    pub(crate) fn push_some(&mut self, units: u64, merged: T) {
        self.room();
        match self.columns.last_mut().filter(|_| self.in_last > 0) {
            Some(last) => last.merge(merged),
            None => self.columns.push(merged),
        }
        self.in_last += units;
    }

    fn widen(&mut self) {
        let mut narrow = std::mem::take(&mut self.columns).into_iter();
        while let Some(mut left) = narrow.next() {
            if let Some(right) = narrow.next() {
                left.merge(right);
            }
            self.columns.push(left);
        }
        self.width *= 2;
    }

    /// Units in a column; the last one may have fewer.
    pub(crate) fn width(&self) -> u64 {
        self.width
    }

    /// The columns, from left to right.
    pub(crate) fn as_slice(&self) -> &[T] {
        &self.columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Sum(u64);

    impl Merge for Sum {
        fn merge(&mut self, right: Self) {
            self.0 += right.0;
        }
    }

    #[test]
    fn columns_stay_few_and_lose_nothing() {
        let mut columns = Columns::new(8);
        for unit in 0..1_001 {
            columns.push(Sum(unit));
        }
        assert_eq!((columns.width(), columns.as_slice().len()), (128, 8));
        assert_eq!(columns.as_slice()[1], Sum((128..256).sum()));
        assert_eq!(columns.as_slice()[7], Sum((896..1_001).sum()));
    }

    #[test]
    fn runs_of_units_are_the_same_as_single_ones() {
        let (mut single, mut runs) = (Columns::new(4), Columns::new(4));
        (0..100).for_each(|_| single.push(Sum(1)));
        let mut left = 100;
        while left > 0 {
            let units = runs.room().min(7).min(left);
            runs.push_some(units, Sum(units));
            left -= units;
        }
        assert_eq!((single.as_slice(), single.width()), (runs.as_slice(), runs.width()));
    }
}
