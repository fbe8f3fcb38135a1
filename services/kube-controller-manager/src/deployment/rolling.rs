//! The rolling update and proportional scaling: how many pods each ReplicaSet gets. Upstream's arithmetic, exactly.

use super::plan::Rollout;

impl Rollout<'_> {
    /// One move of a rolling update: the new set grows into the surge, or else old ones shrink.
    pub(super) fn roll(&mut self) {
        let new = self.ensure_new();
        if self.sets[new].fresh {
            return;
        }
        let wanted = self.deployment.replicas();
        let current = self.sets[new].replicas();
        let target = if current > wanted { wanted } else { self.size_of_new() };
        if target != current {
            self.set_replicas(new, target);
            return;
        }
        self.shrink_old(new);
    }

    fn shrink_old(&mut self, new: usize) {
        let min_available = self.deployment.replicas() - self.deployment.max_unavailable();
        let new_unavailable = self.sets[new].replicas() - self.sets[new].available();
        let removable = self.total() - min_available - new_unavailable;
        if removable <= 0 {
            return;
        }
        self.remove_unhealthy(removable);
        self.remove_healthy(min_available);
    }

    /// Pods of old sets that are not available cost nothing to remove, so they go first.
    fn remove_unhealthy(&mut self, limit: i64) {
        let mut left = limit;
        for index in self.old().collect::<Vec<_>>() {
            let set = &self.sets[index];
            let unhealthy = set.replicas() - set.available();
            let remove = unhealthy.min(left);
            if set.replicas() == 0 || remove <= 0 {
                continue;
            }
            let replicas = set.replicas() - remove;
            self.set_replicas(index, replicas);
            left -= remove;
        }
    }

    /// Then as many available pods as the fence allows.
    fn remove_healthy(&mut self, min_available: i64) {
        let available: i64 = self.sets.iter().map(|set| set.available()).sum();
        let mut left = available - min_available;
        for index in self.old().collect::<Vec<_>>() {
            let replicas = self.sets[index].replicas();
            let remove = replicas.min(left);
            if remove <= 0 {
                continue;
            }
            self.set_replicas(index, replicas - remove);
            left -= remove;
        }
    }

    /// The Deployment's size changed, or it is paused: a single set takes all, several take their share.
    pub(super) fn scale_proportionally(&mut self) {
        let wanted = self.deployment.replicas();
        let active: Vec<usize> = self.active().collect();
        let single = match active.as_slice() {
            [] => self.new.or_else(|| self.sets.len().checked_sub(1)),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(index) = single {
            if self.sets[index].replicas() != wanted {
                self.set_replicas(index, wanted);
            }
            return;
        }
        if active.is_empty() {
            return;
        }
        if self.new.is_some_and(|new| self.sets[new].is_saturated(&self.deployment)) {
            let new = self.new;
            for index in active.into_iter().filter(|i| Some(*i) != new) {
                self.set_replicas(index, 0);
            }
            return;
        }
        if self.deployment.is_rolling() {
            self.share_out(active);
        }
    }

    /// Gives each active set the part of the difference that its size is of the whole; the largest takes the rest.
    fn share_out(&mut self, mut active: Vec<usize>) {
        let wanted = self.deployment.replicas();
        let allowed = if wanted > 0 { wanted + self.deployment.max_surge() } else { 0 };
        let difference = allowed - active.iter().map(|i| self.sets[*i].replicas()).sum::<i64>();
        // Largest first; among equals the newer gains first and the older loses first.
        active.sort_by(|a, b| {
            let (x, y) = (&self.sets[*a], &self.sets[*b]);
            let age = x.created().cmp(&y.created());
            y.replicas().cmp(&x.replicas()).then(if difference > 0 { age.reverse() } else { age })
        });
        let mut given = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for index in active {
            let share = if difference == 0 { 0 } else { self.share(index, difference - given) };
            given += share;
            sizes.push((index, self.sets[index].replicas() + share));
        }
        if let Some((_, first)) = sizes.first_mut() {
            *first = (*first + difference - given).max(0);
        }
        for (index, size) in sizes {
            if self.sets[index].replicas() != size {
                self.set_replicas(index, size);
            } else {
                self.sets[index].note_size(&self.deployment);
            }
        }
    }

    fn share(&self, index: usize, left: i64) -> i64 {
        let set = &self.sets[index];
        if set.replicas() == 0 || left == 0 {
            return 0;
        }
        let fraction = self.fraction(index);
        if left > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    /// The set's size in the new whole, less its size now. The whole before is what its annotation says.
    fn fraction(&self, index: usize) -> i64 {
        let set = &self.sets[index];
        if self.deployment.replicas() == 0 {
            return -set.replicas();
        }
        let whole = self.deployment.replicas() + self.deployment.max_surge();
        let status = self.deployment.0["status"]["replicas"].as_i64();
        let before = set.max().or(status).unwrap_or(0);
        if before <= 0 {
            return 0;
        }
        // Rounds half away from zero; all terms are positive.
        (2 * set.replicas() * whole + before) / (2 * before) - set.replicas()
    }
}
