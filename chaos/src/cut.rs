//! Which packets a fault of the network takes from a master: worked out from the plan and the masters
//! at that moment. What is cut off is always between the master that was hit and others, so that all
//! masters that were not hit still reach each other.

use crate::{
    scenario::Harm,
    schedule::{Master, Strike},
};

/// Of a hundred lost packets, fewer are not felt, and more are a partition.
const LOSS_PERCENT: std::ops::Range<u64> = 5..40;

/// What a master does not get, and what of its own does not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Masters whose packets do not get to it.
    pub from: Vec<u64>,
    /// Masters to whom its packets do not get.
    pub to: Vec<u64>,
    /// Of a hundred packets so many.
    pub percent: u32,
    /// For people.
    pub detail: String,
}

/// What a fault cuts when it hits `target`; `None` if it is none of the network, or if there is nobody
/// to be cut off from.
pub fn cut(strike: &Strike, target: &Master, masters: &[Master]) -> Option<Cut> {
    let others: Vec<&Master> = masters.iter().filter(|it| it.id != target.id).collect();
    let ids: Vec<u64> = others.iter().map(|it| it.id).collect();
    let voters: Vec<&&Master> = others.iter().filter(|it| it.votes).collect();
    // Another part of it than says whom it hits.
    let draw = strike.draw >> 32;
    let partner = voters.get((draw % voters.len().max(1) as u64) as usize)?;
    let percent = LOSS_PERCENT.start + draw % (LOSS_PERCENT.end - LOSS_PERCENT.start);
    let (from, to, percent, detail) = match (strike.harm, draw % 2) {
        (Harm::Partition, _) => (ids.clone(), ids, 100, "from all others".to_owned()),
        (Harm::OneWay, 0) => (Vec::new(), ids, 100, "hears and is not heard".to_owned()),
        (Harm::OneWay, _) => (ids, Vec::new(), 100, "is heard and does not hear".to_owned()),
        (Harm::Partial, _) => {
            (vec![partner.id], vec![partner.id], 100, format!("from {}", partner.name))
        }
        (Harm::Loss, _) => (ids.clone(), ids, percent as u32, format!("of {percent} % of packets")),
        _ => return None,
    };
    Some(Cut { from, to, percent, detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Target;
    use std::time::Duration;

    fn masters(count: u64) -> Vec<Master> {
        let one =
            |id| Master { id, name: format!("m{id}"), leads: id == 2, votes: true, answers: true };
        (1..=count).map(one).collect()
    }

    fn cut_of(harm: Harm, draw: u64, masters: &[Master]) -> Option<Cut> {
        let (at, hold, target) = (Duration::ZERO, Duration::from_secs(1), Target::Leader);
        let strike = Strike { at, harm, target, hold, at_most: 1, turn: 0, draw: draw << 32 };
        cut(&strike, &masters[1], masters)
    }

    #[test]
    fn each_kind_takes_its_packets() {
        let masters = masters(3);
        let of = |harm, draw| cut_of(harm, draw, &masters).expect("a cut");
        let full = of(Harm::Partition, 5);
        assert_eq!((full.from, full.to, full.percent), (vec![1, 3], vec![1, 3], 100));
        let unheard = of(Harm::OneWay, 4);
        assert_eq!((unheard.from, unheard.to), (vec![], vec![1, 3]));
        let deaf = of(Harm::OneWay, 5);
        assert_eq!((deaf.from, deaf.to), (vec![1, 3], vec![]));
        assert_eq!((of(Harm::Partial, 4).from, of(Harm::Partial, 5).to), (vec![1], vec![3]));
        assert_eq!(of(Harm::Partial, 5).detail, "from m3");
        let loss = of(Harm::Loss, 17);
        assert_eq!((loss.from, loss.percent), (vec![1, 3], 22));
        assert_eq!(cut_of(Harm::Kill, 1, &masters), None);
        assert_eq!(cut_of(Harm::Pause, 1, &masters), None);
    }

    #[test]
    fn who_was_not_hit_reaches_all_who_were_not() {
        let masters = masters(5);
        for harm in [Harm::Partition, Harm::OneWay, Harm::Partial, Harm::Loss] {
            for draw in 0..64 {
                let cut = cut_of(harm, draw, &masters).expect("a cut");
                assert!(!cut.from.contains(&2) && !cut.to.contains(&2), "{harm}: {cut:?}");
                assert!(!cut.from.is_empty() || !cut.to.is_empty(), "{harm}: {cut:?}");
                assert!((5..=100).contains(&cut.percent), "{harm}: {cut:?}");
            }
        }
        let mut alone = masters;
        alone.truncate(2);
        alone[0].votes = false;
        assert_eq!(cut_of(Harm::Partial, 1, &alone), None, "who only learns is no partner");
    }
}
