//! How many subscriptions are open, and how many may be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::ServerError;
use uuid::Uuid;

use super::answer;

/// The open subscriptions of this process, by tenant and by user.
pub struct Streams {
    per_user: usize,
    per_tenant: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_tenant: HashMap<Uuid, usize>,
    by_user: HashMap<(Uuid, Uuid), usize>,
}

/// The place of an open subscription, free again when this is dropped.
pub struct Place {
    streams: Arc<Streams>,
    tenant: Uuid,
    user: Uuid,
}

/// There is no place: the user, or the tenant, has as many as it may.
pub struct Full {
    whose: &'static str,
    most: usize,
}

impl Full {
    /// As clients are told.
    pub fn error(&self) -> ServerError {
        let Self { whose, most } = self;
        let message = format!("A {whose} may have {most} subscriptions open at the same time.");
        answer::error("RATE_LIMITED", message)
    }
}

impl Streams {
    /// Room for so many.
    pub fn new(per_user: usize, per_tenant: usize) -> Arc<Self> {
        Arc::new(Self {
            per_user,
            per_tenant,
            open: Mutex::default(),
        })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`Full`] when the user or the tenant has as many as it may.
    pub fn open(self: &Arc<Self>, (tenant, user): (Uuid, Uuid)) -> Result<Place, Full> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open
            .by_user
            .get(&(tenant, user))
            .is_some_and(|count| *count >= self.per_user)
        {
            return Err(Full {
                whose: "user",
                most: self.per_user,
            });
        }
        let of_tenant = open.by_tenant.entry(tenant).or_default();
        if *of_tenant >= self.per_tenant {
            return Err(Full {
                whose: "tenant",
                most: self.per_tenant,
            });
        }
        *of_tenant += 1;
        *open.by_user.entry((tenant, user)).or_default() += 1;
        Ok(Place {
            streams: self.clone(),
            tenant,
            user,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { by_tenant, by_user } = &mut *open;
        leave(by_tenant, self.tenant);
        leave(by_user, (self.tenant, self.user));
    }
}

fn leave<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_a_tenant_have_so_many_places_and_get_them_back() {
        let streams = Streams::new(2, 3);
        let [tenant, other, ada, bob] = [1, 2, 3, 4].map(Uuid::from_u128);
        let most = |full: Result<Place, Full>| full.err().map(|full| (full.whose, full.most));
        let first = streams.open((tenant, ada));
        let second = streams.open((tenant, ada));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(most(streams.open((tenant, ada))), Some(("user", 2)));
        let third = streams.open((tenant, bob));
        assert!(third.is_ok());
        assert_eq!(most(streams.open((tenant, bob))), Some(("tenant", 3)));
        // The same user id in another tenant is another user.
        assert!(streams.open((other, ada)).is_ok());
        drop(first);
        assert_eq!(most(streams.open((tenant, bob))), None);
        drop((second, third));
        let open = streams.open.lock().expect("nobody panicked");
        assert!(open.by_user.is_empty() && open.by_tenant.is_empty());
    }
}
