//! How many watchers a write wakes: those of the whole resource, of its namespace and of the object.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// What is watched: group and plural, a namespace or all (empty), a name or all (empty).
type Place = (&'static str, &'static str, String, String);

/// All watches that run.
#[derive(Clone, Default)]
pub struct Watchers(Arc<Mutex<HashMap<Place, usize>>>);

/// One watch; it is no longer counted when this is dropped.
pub struct Watching {
    watchers: Watchers,
    place: Place,
}

impl Watchers {
    /// Counts a watch from now on.
    pub fn begin(&self, (group, plural): (&'static str, &'static str), namespace: &str, name: &str) -> Watching {
        let place = (group, plural, namespace.to_owned(), name.to_owned());
        *self.0.lock().entry(place.clone()).or_default() += 1;
        Watching { watchers: self.clone(), place }
    }

    /// How many are told of a write to an object.
    pub fn interested(&self, (group, plural): (&'static str, &'static str), namespace: &str, name: &str) -> usize {
        let counts = self.0.lock();
        if counts.is_empty() {
            return 0;
        }
        let of = |namespace: &str, name: &str| {
            counts.get(&(group, plural, namespace.to_owned(), name.to_owned())).copied().unwrap_or_default()
        };
        let mut sum = of("", "");
        if !namespace.is_empty() {
            sum += of(namespace, "");
        }
        if !name.is_empty() {
            sum += of("", name);
            if !namespace.is_empty() {
                sum += of(namespace, name);
            }
        }
        sum
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut counts = self.watchers.0.lock();
        if let Some(count) = counts.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_wakes_those_who_look() {
        let watchers = Watchers::default();
        let pods = ("", "pods");
        let _all = [watchers.begin(pods, "", ""), watchers.begin(pods, "", "")];
        let own = watchers.begin(pods, "n", "");
        let one = watchers.begin(pods, "n", "p");
        let _other = watchers.begin(("", "nodes"), "", "");
        for (namespace, name, want) in [("n", "p", 4), ("n", "q", 3), ("m", "p", 2), ("", "", 2)] {
            assert_eq!(watchers.interested(pods, namespace, name), want, "{namespace}/{name}");
        }
        drop((own, one));
        assert_eq!(watchers.interested(pods, "n", "p"), 2);
        assert_eq!(watchers.0.lock().len(), 2, "nothing is left of those that ended");
    }
}
