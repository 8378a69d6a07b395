//! The fewest faults with which a run still fails.

/// Leaves out whatever can be left out: halves first, then one by one, until nothing more goes.
/// `fails` is asked at most `runs_max` times.
pub fn shrink<T: Clone>(
    all: Vec<T>,
    runs_max: usize,
    mut fails: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let (mut kept, mut runs) = (all, 0);
    let mut size = kept.len().div_ceil(2);
    while size > 0 {
        let (mut at, mut smaller) = (0, false);
        while at < kept.len() && runs < runs_max {
            let mut without = kept.clone();
            without.drain(at..(at + size).min(kept.len()));
            runs += 1;
            match fails(&without) {
                true => (kept, smaller) = (without, true),
                false => at += size,
            }
        }
        size = match smaller && size == 1 {
            true => 1,
            false => size / 2,
        };
        if runs >= runs_max {
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_stays() {
        let needed = |some: &[u32]| some.contains(&3) && some.contains(&17);
        assert_eq!(shrink((0..40).collect(), 1000, needed), [3, 17]);
        assert_eq!(shrink((0..40).collect::<Vec<u32>>(), 1000, |_| true), Vec::<u32>::new());
        assert_eq!(shrink(vec![1, 2, 3], 1000, |some| some.len() == 3), [1, 2, 3]);
        let mut asked = 0;
        shrink((0..1000).collect::<Vec<u32>>(), 20, |_| {
            asked += 1;
            false
        });
        assert_eq!(asked, 20);
    }
}
