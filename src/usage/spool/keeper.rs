//! The thread that keeps the spool: it brings what was appended to the disk, removes finished files and makes new
//! ones ahead of time. A thread of its own, because all it does waits for the disk.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use super::Inner;

/// Wakes the keeper. Free when it was rung already.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bell {
    pub fn ring(&self) {
        if !self.rung.load(Ordering::Relaxed)
            && !self.rung.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// Ends the thread when dropped, after a last sync.
#[derive(Debug)]
pub struct Keeper {
    inner: Arc<Inner>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How soon a full or failed disk is tried again, and a request that was refused may hope.
const PATIENCE: Duration = Duration::from_millis(100);

impl Keeper {
    pub fn start(inner: Arc<Inner>, sync_interval: Duration) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (inner, stop) = (Arc::clone(&inner), Arc::clone(&stop));
            thread::Builder::new().name("spool".to_owned()).spawn(move || keep(&inner, &stop, sync_interval))?
        };
        let _ = inner.keeper.thread.set(thread.thread().clone());
        Ok(Self { inner, stop, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.inner.tidy();
        self.inner.sync();
    }
}

fn keep(inner: &Inner, stop: &AtomicBool, sync_interval: Duration) {
    let mut synced = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let ailing = inner.full.load(Ordering::Relaxed) || inner.broken.load(Ordering::Relaxed);
        let until_sync = sync_interval.saturating_sub(synced.elapsed());
        thread::park_timeout(if ailing { until_sync.min(PATIENCE) } else { until_sync });
        let rung = inner.keeper.rung.swap(false, Ordering::AcqRel);
        if synced.elapsed() >= sync_interval {
            inner.sync();
            synced = Instant::now();
        }
        if rung || ailing {
            inner.tidy();
        }
    }
}
