//! Frames that are nearly right: recorded ones, changed at random with their structure in mind.
//!
//! Random bytes die at the first look; a real frame with one member too deep, twice or of another type
//! gets much further. A frame and the changes to it are values of `proptest`, which cuts a failure down
//! to the changes that matter.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

/// A recorded frame and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    seed: Index,
    changes: Vec<Change>,
    breaks: Vec<Break>,
}

/// A change that leaves JSON.
#[derive(Clone, Debug)]
enum Change {
    /// Puts something odd in the place of a member or element.
    Replace(Index, Index),
    /// Takes a member or element away.
    Remove(Index),
    /// Puts a member of another frame in.
    Graft(Index, Index),
    /// Makes it the only element of a list in a list in a list …
    Nest(Index, u8),
    /// Says it many times.
    Repeat(Index, u16),
}

/// A change that may leave anything.
#[derive(Clone, Debug)]
enum Break {
    /// Writes one byte over another.
    Byte(Index, u8),
    /// Puts bytes in.
    Insert(Index, Vec<u8>),
    /// Ends early.
    Cut(Index),
    /// Leaves a piece out.
    Skip(Index, u8),
    /// Says the first member a second time.
    Twice,
}

/// Changed frames, of which many are whole JSON and some are anything.
pub(crate) fn mutants() -> impl Strategy<Value = Mutant> {
    let index = any::<Index>;
    let change = prop_oneof![
        4 => (index(), index()).prop_map(|(at, with)| Change::Replace(at, with)),
        2 => index().prop_map(Change::Remove),
        2 => (index(), index()).prop_map(|(at, from)| Change::Graft(at, from)),
        1 => (index(), 1..200u8).prop_map(|(at, depth)| Change::Nest(at, depth)),
        1 => (index(), 1..2000u16).prop_map(|(at, times)| Change::Repeat(at, times)),
    ];
    let broken = prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Break::Byte(at, byte)),
        (index(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Break::Insert(at, bytes)),
        index().prop_map(Break::Cut),
        (index(), any::<u8>()).prop_map(|(at, count)| Break::Skip(at, count)),
        Just(Break::Twice),
    ];
    (
        index(),
        prop::collection::vec(change, 0..4),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(broken, 1..4)],
    )
        .prop_map(|(seed, changes, breaks)| Mutant {
            seed,
            changes,
            breaks,
        })
}

/// Every frame that official SDKs and a control plane were seen to exchange: requests, or responses.
pub(crate) fn recorded(golden: &Path, member: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut folders = vec![golden.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "json")
                && !path.ends_with("_handshake.json")
            {
                let content =
                    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
                let exchanges = match content {
                    Value::Array(list) => list,
                    one => vec![one],
                };
                found.extend(exchanges.into_iter().map(|mut one| one[member].take()));
            }
        }
    }
    found.retain(Value::is_object);
    found.sort_by_cached_key(Value::to_string);
    assert!(found.len() > 100, "the recorded frames are missing");
    found
}

impl Mutant {
    /// The frame's bytes. `request_id`: put in its place before anything is changed.
    pub(crate) fn bytes(&self, recorded: &[Value], request_id: Option<&str>) -> Vec<u8> {
        let mut frame = self.seed.get(recorded).clone();
        if let Some(id) = request_id {
            frame["request_id"] = id.into();
        }
        for change in &self.changes {
            change.apply(&mut frame, recorded);
        }
        let mut bytes = frame.to_string().into_bytes();
        for broken in &self.breaks {
            broken.apply(&mut bytes);
        }
        bytes
    }
}

impl Change {
    fn apply(&self, frame: &mut Value, recorded: &[Value]) {
        match self {
            Self::Replace(at, with) => *place(frame, at) = with.get(&odd()).clone(),
            Self::Graft(at, from) => *place(frame, at) = from.get(recorded).clone(),
            Self::Nest(at, depth) => {
                let place = place(frame, at);
                for _ in 0..*depth {
                    *place = Value::Array(vec![place.take()]);
                }
            }
            Self::Repeat(at, times) => {
                let place = place(frame, at);
                let one = place.take();
                *place = Value::Array(vec![one; usize::from(*times)]);
            }
            Self::Remove(at) => {
                let members = frame.as_object_mut();
                let name = members.as_ref().filter(|all| !all.is_empty()).map(|all| {
                    let names: Vec<_> = all.keys().cloned().collect();
                    at.get(&names).clone()
                });
                if let Some((members, name)) = members.zip(name) {
                    members.remove(&name);
                }
            }
        }
    }
}

/// What nobody expects there.
fn odd() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1.5e300),
        json!(""),
        json!("Unknown message type"),
        json!("\u{0}\u{1f}\u{202e}\u{feff}"),
        json!("𝄋".repeat(3000)),
        json!("-9223372036854775809"),
        json!("1767323045678"),
        json!("2026-13-45T99:99:99Z"),
        json!([]),
        json!([null, 1, "a", {}]),
        json!({}),
        json!({"request_id": "other", "type": "recovery"}),
    ]
}

/// Some member or element, at any depth; the frame itself if it has none.
fn place<'a>(frame: &'a mut Value, at: &Index) -> &'a mut Value {
    let mut paths = Vec::new();
    collect(frame, &mut String::new(), &mut paths);
    let path = at.get(&paths).clone();
    // Every path was found in there.
    frame.pointer_mut(&path).unwrap()
}

fn collect(value: &Value, path: &mut String, paths: &mut Vec<String>) {
    paths.push(path.clone());
    if paths.len() > 500 {
        return;
    }
    let here = path.len();
    let mut step = |name: &str, inner: &Value| {
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        collect(inner, path, paths);
        path.truncate(here);
    };
    match value {
        Value::Object(members) => Map::iter(members).for_each(|(name, inner)| step(name, inner)),
        Value::Array(list) => {
            for (n, inner) in list.iter().enumerate() {
                step(&n.to_string(), inner);
            }
        }
        _ => {}
    }
}

impl Break {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Byte(at, byte) => bytes[at.index(length)] = *byte,
            Self::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Skip(at, count) => {
                let at = at.index(length);
                bytes.drain(at..(at + usize::from(*count)).min(length));
            }
            Self::Twice => {
                let end = bytes.iter().position(|byte| *byte == b',');
                if let Some(end) = end {
                    let member = bytes[1..=end].to_vec();
                    bytes.splice(1..1, member);
                }
            }
        }
    }
}
