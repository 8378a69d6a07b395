//! A list that grows, and of which a copy costs next to nothing: whoever judges all of it keeps nobody
//! from adding to it.

use std::sync::Arc;

/// Items of which copies are shared until one of them is changed.
const PART: usize = 1024;

/// The list. A copy is as of now, whatever is added later.
#[derive(Clone, Debug)]
pub struct Growing<T>(Vec<Arc<Vec<T>>>);

impl<T> Default for Growing<T> {
    fn default() -> Growing<T> {
        Growing(Vec::new())
    }
}

impl<T: Clone> Growing<T> {
    pub fn push(&mut self, item: T) {
        if let Some(part) = self.0.last_mut().filter(|part| part.len() < PART) {
            return Arc::make_mut(part).push(item);
        }
        let mut part = Vec::with_capacity(PART);
        part.push(item);
        self.0.push(Arc::new(part));
    }

    pub fn get_mut(&mut self, nth: usize) -> Option<&mut T> {
        Arc::make_mut(self.0.get_mut(nth / PART)?).get_mut(nth % PART)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().flat_map(|part| part.iter())
    }

    pub fn last(&self) -> Option<&T> {
        self.0.last()?.last()
    }

    pub fn len(&self) -> usize {
        // All parts but the last are full.
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PART + last.len())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What never happens to a run, but to what checks are tried on.
    #[cfg(test)]
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Vec<T>)) {
        let mut items = self.iter().cloned().collect();
        edit(&mut items);
        *self = items.into_iter().collect();
    }
}

impl<T: Clone> FromIterator<T> for Growing<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Growing<T> {
        let mut growing = Growing::default();
        items.into_iter().for_each(|item| growing.push(item));
        growing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_is() {
        let mut growing: Growing<usize> = (0..PART + 2).collect();
        assert_eq!((growing.len(), growing.last()), (PART + 2, Some(&(PART + 1))));
        let copy = growing.clone();
        growing.push(7);
        *growing.get_mut(1).expect("it is there") = 9;
        assert!(growing.get_mut(PART + 3).is_none());
        assert_eq!((growing.len(), growing.iter().nth(1)), (PART + 3, Some(&9)));
        assert!(copy.iter().copied().eq(0..PART + 2));
        assert!(Growing::<u8>::default().is_empty());
    }
}
