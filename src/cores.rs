//! Which cores the shards run on: those this process may use, hyper-thread siblings last.

use std::collections::BTreeSet;
use std::path::Path;

mod affinity;

pub use affinity::allowed;

/// Why a list of cores is unusable.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoreListError {
    /// An entry is neither a number nor a rising range.
    #[error("{0:?} is neither a core nor a rising range of cores")]
    Entry(String),
    /// The list names no core.
    #[error("the list names no core")]
    Empty,
    /// The process may not use one of them.
    #[error("core {core} isn't among those this process may use ({allowed})")]
    Forbidden {
        /// The core.
        core: usize,
        /// Those it may use, as a list.
        allowed: String,
    },
}

const MAX_CORES: usize = 4096;

/// Parses `0-7,16-23` (the format of cpusets), keeping the order and dropping repetitions.
///
/// # Errors
/// An entry that is no number or range, or none at all.
pub fn parse_list(text: &str) -> Result<Vec<usize>, CoreListError> {
    let mut cores = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last && last < MAX_CORES => {
                cores.extend((first..=last).filter(|core| !cores.contains(core)).collect::<Vec<_>>());
            }
            _ => return Err(CoreListError::Entry(entry.to_owned())),
        }
    }
    if cores.is_empty() { Err(CoreListError::Empty) } else { Ok(cores) }
}

/// The opposite of [`parse_list`]: `0-3,8`.
#[must_use]
pub fn format_list(cores: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let texts =
        ranges.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    texts.collect::<Vec<_>>().join(",")
}

/// `cores` with one thread of each physical core first, then their hyper-thread siblings.
#[must_use]
pub fn siblings_last(cores: &[usize], siblings_of: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let mut taken = BTreeSet::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for &core in cores {
        if taken.contains(&core) {
            rest.push(core);
        } else {
            first.push(core);
            taken.extend(siblings_of(core));
            taken.insert(core);
        }
    }
    first.extend(rest);
    first
}

/// The hyper-thread siblings of a core, from `/sys`; none where it doesn't say.
#[must_use]
pub fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    let text = std::fs::read_to_string(Path::new(&path)).unwrap_or_default();
    parse_list(text.trim()).unwrap_or_default()
}

/// The core of each shard. Named cores are taken in their order; without a count, all of them.
/// Otherwise the allowed ones, one left for ingress and control. More shards than cores leaves the surplus unpinned.
///
/// # Errors
/// A named core that the process may not use.
pub fn plan(
    count: Option<usize>,
    named: Option<&[usize]>,
    allowed: &[usize],
    siblings_of: impl Fn(usize) -> Vec<usize>,
) -> Result<Vec<Option<usize>>, CoreListError> {
    if let Some(&core) = named.unwrap_or_default().iter().find(|core| !allowed.contains(core)) {
        return Err(CoreListError::Forbidden { core, allowed: format_list(allowed) });
    }
    let usable = named.map_or_else(|| siblings_last(allowed, siblings_of), <[usize]>::to_vec);
    let default = if named.is_some() { usable.len() } else { usable.len().saturating_sub(1) };
    let count = count.unwrap_or(default).max(1);
    Ok((0..count).map(|index| usable.get(index).copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hyper_threads(core: usize) -> Vec<usize> {
        vec![core % 4, core % 4 + 4]
    }

    #[test]
    fn ranges_and_single_cores_are_listed_in_order() {
        assert_eq!(parse_list("0-2, 8,2"), Ok(vec![0, 1, 2, 8]));
        assert_eq!(format_list(&[0, 1, 2, 8]), "0-2,8");
    }

    #[test]
    fn a_broken_list_names_the_broken_entry() {
        for entry in ["x", "3-1", "1-", "-1", "1-2-3", "99999999"] {
            assert_eq!(parse_list(&format!("0,{entry}")), Err(CoreListError::Entry(entry.to_owned())));
        }
        assert_eq!(parse_list(" , "), Err(CoreListError::Empty));
    }

    #[test]
    fn this_process_may_use_at_least_one_core() {
        assert!(!allowed().expect("the kernel says").is_empty());
    }

    #[test]
    fn one_thread_of_each_physical_core_comes_first() {
        assert_eq!(siblings_last(&[0, 1, 2, 4, 5, 6], hyper_threads), [0, 1, 2, 4, 5, 6]);
        let pairs = |core: usize| vec![core & !1, core | 1];
        assert_eq!(siblings_last(&[0, 1, 2, 3], pairs), [0, 2, 1, 3]);
    }

    #[test]
    fn by_default_one_core_is_left_for_ingress_and_control() {
        assert_eq!(plan(None, None, &[0, 1, 2], |_| vec![]), Ok(vec![Some(0), Some(1)]));
        assert_eq!(plan(None, None, &[3], |_| vec![]), Ok(vec![Some(3)]));
    }

    #[test]
    fn named_cores_are_all_taken_in_their_order() {
        assert_eq!(plan(None, Some(&[3, 1]), &[0, 1, 2, 3], |_| vec![]), Ok(vec![Some(3), Some(1)]));
        assert_eq!(plan(Some(1), Some(&[3, 1]), &[0, 1, 2, 3], |_| vec![]), Ok(vec![Some(3)]));
    }

    #[test]
    fn surplus_shards_are_not_pinned() {
        assert_eq!(plan(Some(3), None, &[0, 1], |_| vec![]), Ok(vec![Some(0), Some(1), None]));
    }

    #[test]
    fn a_core_outside_the_cpuset_is_refused() {
        let error = plan(None, Some(&[0, 9]), &[0, 1], |_| vec![]).expect_err("core 9 is forbidden");
        assert_eq!(error, CoreListError::Forbidden { core: 9, allowed: "0-1".to_owned() });
    }
}
