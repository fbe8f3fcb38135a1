//! The log against a model, and against damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Small files, so that there are many.
const SMALL: usize = 8 << 10;

fn open(folder: &Path) -> Recovered {
    let mut recovered = Wal::open(folder, |_, _| Ok(())).unwrap();
    recovered.wal.file_bytes = SMALL;
    recovered
}

fn entries(wal: &Wal) -> BTreeMap<u64, Vec<u8>> {
    wal.stored(0, u64::MAX).iter().map(|stored| (stored.index, stored.read().unwrap())).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize, usize),
    Truncate(u64),
    Purge(u64),
    Vote(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..5usize, prop_oneof![4 => 0..600usize, 1 => Just(SMALL / 3)]).prop_map(|(n, s)| Step::Append(n, s)),
        1 => (0..4u64).prop_map(Step::Truncate),
        1 => (0..30u64).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn agrees_with_a_map(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        let mut model = BTreeMap::new();
        let (mut next, mut vote, mut mark) = (0, Vec::new(), Vec::new());
        for (turn, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(count, size) => {
                    let batch: Vec<_> = (0..count).map(|_| { next += 1; (next - 1, vec![turn as u8; size]) }).collect();
                    log.wal.append(&batch).unwrap().sync().unwrap();
                    model.extend(batch);
                    if let Some(spare) = log.wal.spare_wanted() && size % 2 == 0 {
                        spare.make();
                    }
                }
                Step::Truncate(back) => {
                    let first = model.keys().next().copied().unwrap_or(next);
                    next = next.saturating_sub(back).max(first);
                    log.wal.truncate(next).unwrap().sync().unwrap();
                    model.retain(|index, _| *index < next);
                }
                Step::Purge(upto) if (next - model.len() as u64..next + 3).contains(&(upto + 1)) => {
                    mark = format!("upto {upto}").into_bytes();
                    log.wal.purge(upto, mark.clone()).unwrap().sync().unwrap();
                    model.retain(|index, _| *index > upto);
                    next = next.max(upto + 1);
                }
                Step::Purge(_) => {}
                Step::Vote(v) => {
                    vote = vec![v; 9];
                    log.wal.vote(vote.clone()).unwrap().sync().unwrap();
                }
                Step::Reopen => {
                    drop(log);
                    log = open(folder.path());
                    prop_assert_eq!((&log.vote, &log.purged), (&vote, &mark));
                    prop_assert_eq!(log.last.as_ref().map(|(index, _)| *index), model.keys().last().copied());
                }
            }
            prop_assert_eq!(&entries(&log.wal), &model);
        }
    }
}

#[test]
fn a_spare_file_becomes_the_next_one_and_an_unused_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    assert!(log.wal.spare_wanted().is_none(), "there is time");
    for index in 0..3 {
        log.wal.append(&[(index, vec![1; SMALL / 2 + 1])]).unwrap();
        log.wal.spare_wanted().expect("none is ready").make();
        assert!(log.wal.spare_wanted().is_none(), "one is enough");
        let lengths: Vec<_> = files(folder.path()).iter().map(|file| fs::metadata(file).unwrap().len()).collect();
        // The first file was made by the append, the others were spare ones.
        assert_eq!(lengths[1..], vec![SMALL as u64; index as usize + 1]);
    }
    let before = entries(&log.wal);
    drop(log);
    let mut log = open(folder.path());
    assert_eq!(entries(&log.wal), before);
    // A folder in the way of the spare file: the log goes on without.
    fs::remove_file(folder.path().join("spare")).unwrap();
    fs::create_dir(folder.path().join("spare")).unwrap();
    log.wal.spare_wanted().expect("none is ready").make();
    log.wal.append(&[(3, vec![1; SMALL / 2 + 1])]).unwrap().sync().unwrap();
    assert_eq!(entries(&log.wal).len(), 4);
}

#[test]
fn files_go_when_nothing_in_them_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    log.wal.vote(b"me".to_vec()).unwrap();
    for index in 0..8 {
        log.wal.append(&[(index, vec![1; SMALL / 2 + 1])]).unwrap();
    }
    assert_eq!(files(folder.path()).len(), 8, "each entry needs a file of its own");
    log.wal.purge(5, b"five".to_vec()).unwrap();
    assert_eq!(files(folder.path()).len(), 8, "the mark is not durable yet");
    log.wal.purge(6, b"six".to_vec()).unwrap();
    assert_eq!(files(folder.path()).len(), 2);
    drop(log);
    let log = open(folder.path());
    assert_eq!((log.vote.as_slice(), log.purged.as_slice()), (b"me".as_slice(), b"six".as_slice()));
    assert_eq!(entries(&log.wal).into_keys().collect::<Vec<_>>(), [7]);
}

#[test]
fn an_interrupted_write_is_cut_off_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    log.wal.append(&[(0, b"kept".to_vec())]).unwrap().sync().unwrap();
    let from = log.wal.offset;
    log.wal.append(&[(1, vec![7; 3000])]).unwrap();
    let to = log.wal.offset;
    drop(log);
    let file = files(folder.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    for (lost, kept) in [(from..to, 1), (from + 512..to, 1), (from..to - 100, 1), (to..to, 2)] {
        let mut torn = whole.clone();
        torn[lost].fill(0);
        fs::write(&file, torn).unwrap();
        let mut log = open(folder.path());
        assert_eq!(entries(&log.wal).len(), kept);
        log.wal.append(&[(kept as u64, b"next".to_vec())]).unwrap().sync().unwrap();
        assert_eq!(entries(&open(folder.path()).wal).len(), kept + 1);
    }
}

#[test]
fn damage_is_named_by_file_and_offset() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let mut starts = Vec::new();
    for index in 0..3 {
        starts.push(log.wal.offset);
        log.wal.append(&[(index, vec![7; 2000])]).unwrap().sync().unwrap();
    }
    let stored = log.wal.stored(1, 2).remove(0);
    drop(log);
    let file = files(folder.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    for (entry, start) in starts.iter().enumerate() {
        // A flipped bit anywhere; a lost sector too, where a later record knows that it was synced.
        let mut damages = vec![(start + 100..start + 101, 0x08)];
        if entry < 2 {
            damages.push((start + 600..start + 1600, 0));
        }
        for (place, value) in damages {
            let mut bad = whole.clone();
            bad[place].fill(value);
            fs::write(&file, bad).unwrap();
            let error = Wal::open(folder.path(), |_, _| Ok(())).unwrap_err().to_string();
            let expected = format!("corrupt log file {} at offset {start}: ", file.display());
            assert!(error.starts_with(&expected), "{error}");
            if entry == 1 {
                let error = stored.read().unwrap_err().to_string();
                assert!(error.starts_with(&expected) && error.contains("entry 1"), "{error}");
            }
        }
    }
    fs::write(&file, &whole).unwrap();
    let refused = Wal::open(folder.path(), |index, _| if index == 2 { Err("unreadable".into()) } else { Ok(()) });
    let error = refused.unwrap_err().to_string();
    assert!(error.ends_with(&format!("at offset {}: unreadable", starts[2])), "{error}");
}

#[test]
fn missing_files_and_entries_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    for index in 0..3 {
        log.wal.append(&[(index, vec![1; SMALL / 2 + 1])]).unwrap();
    }
    drop(log);
    let all = files(folder.path());
    let fails = |gone: &Path| {
        let kept = fs::read(gone).unwrap();
        fs::remove_file(gone).unwrap();
        let error = Wal::open(folder.path(), |_, _| Ok(())).unwrap_err().to_string();
        fs::write(gone, kept).unwrap();
        error
    };
    let error = fails(&all[1]);
    assert!(error.contains("the file before it, number 0000000000000002, is missing"), "{error}");
    let error = fails(&all[0]);
    assert!(error.contains("entry 0 is missing before entry 1"), "{error}");
    assert_eq!(entries(&open(folder.path()).wal).len(), 3);
}
