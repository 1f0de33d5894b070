//! Request ids.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU16, Ordering},
};

use uuid::Uuid;

/// Makes request ids: UUIDs of version 7 (RFC 9562 §5.7) without asking the kernel for each. Their random part is the
/// process's own random number and a counter of the thread, so two are never the same, and nobody is to guess from one
/// to the next: an id is a name, not a secret.
pub struct Ids {
    process: [u8; 4],
    threads: AtomicU16,
}

thread_local! {
    static COUNTER: Cell<(u16, u32)> = const { Cell::new((u16::MAX, 0)) };
}

impl Default for Ids {
    fn default() -> Self {
        #[expect(clippy::disallowed_methods, reason = "once, for its random part")]
        let random = Uuid::now_v7();
        let [.., a, b, c, d] = *random.as_bytes();
        Self { process: [a, b, c, d], threads: AtomicU16::new(0) }
    }
}

impl Ids {
    /// The next one, for a request that arrived then.
    #[must_use]
    pub fn next(&self, at_micros: i64) -> Uuid {
        let (thread, count) = COUNTER.with(|counter| {
            let (mut thread, count) = counter.get();
            if thread == u16::MAX {
                thread = self.threads.fetch_add(1, Ordering::Relaxed);
            }
            counter.set((thread, count.wrapping_add(1)));
            (thread, count)
        });
        let mut random = [0; 10];
        let parts = count.to_be_bytes().into_iter().chain(thread.to_be_bytes()).chain(self.process);
        random.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        let millis = u64::try_from(at_micros / 1000).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn request_ids_are_distinct_and_of_version_seven() {
        let ids = Arc::new(Ids::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let ids = Arc::clone(&ids);
                std::thread::spawn(move || (0..10_000).map(|_| ids.next(1_795_420_041_000_001)).collect::<Vec<_>>())
            })
            .collect();
        let all: Vec<Uuid> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 40_000);
        assert!(all.iter().all(|id| id.get_version_num() == 7));
    }
}
