//! The managed fields of an object seen through its scale, which shows one field of it by another name
//! and version.

use super::managers::{Entry, Managers};
use super::set::Set;

const SCALE: &str = "autoscaling/v1";
const IN_SCALE: &[&str] = &["spec", "replicas"];

impl Managers {
    /// Those who own the field at `replicas` (`["spec", "replicas"]`), as the scale shows them.
    pub fn in_scale(&self, replicas: &[&str]) -> Managers {
        let owners = self.0.iter().filter(|entry| entry.fields().has_names(replicas));
        let shown = owners.map(|entry| {
            let (manager, applied) = (entry.manager(), entry.applied());
            let fields = Set::of_names(IN_SCALE);
            let mut shown = Entry::new(manager, applied, SCALE, entry.subresource(), fields);
            shown.set_time(entry.time());
            shown
        });
        Managers(shown.collect())
    }

    /// The managers of the object after those of its scale became `scale`; a new owner of the field
    /// owns it in `api_version`.
    pub fn with_scale(mut self, scale: Managers, replicas: &[&str], api_version: &str) -> Managers {
        let mut owners: Vec<Entry> =
            scale.0.into_iter().filter(|entry| entry.fields().has_names(IN_SCALE)).collect();
        let field = Set::of_names(replicas);
        self.0.retain_mut(|entry| {
            if !entry.fields().has_names(replicas) {
                return true;
            }
            let still = owners.iter().position(|owner| {
                owner.manager() == entry.manager()
                    && owner.applied() == entry.applied()
                    && owner.subresource() == entry.subresource()
            });
            if let Some(still) = still {
                owners.remove(still);
                return true;
            }
            entry.with_fields(|fields| {
                fields.subtract(&field);
                !fields.is_empty()
            })
        });
        for owner in owners {
            let (manager, applied) = (owner.manager(), owner.applied());
            // Without a time, as upstream has it.
            let subresource = owner.subresource();
            let mine = self.0.iter_mut().find(|e| e.is(manager, applied, api_version, subresource));
            match mine {
                Some(entry) => entry.with_fields(|fields| fields.union(&field)),
                None => {
                    let fields = field.clone();
                    self.0.push(Entry::new(manager, applied, api_version, subresource, fields));
                }
            }
        }
        self
    }
}
