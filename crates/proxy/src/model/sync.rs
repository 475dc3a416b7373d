//! What `sync.rs` gives the gate, with a choice of who runs next before each touch, and a clock that a story moves. The
//! notifications are tokio's own. Refuses to decide anything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::explorer::{is_lent, is_now, lend, saw, shared, step};

macro_rules! atomic {
    ($name:ident, $real:ty, $value:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name {
            real: $real,
            thing: usize,
        }

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self { real: <$real>::new(value), thing: shared(&value) }
            }

            pub(crate) fn load(&self, _: Ordering) -> $value {
                self.touch("load", |real| real.load(Ordering::SeqCst))
            }

            pub(crate) fn store(&self, value: $value, _: Ordering) {
                self.touch("store", |real| real.store(value, Ordering::SeqCst));
            }

            pub(crate) fn fetch_or(&self, value: $value, _: Ordering) -> $value {
                self.touch("or", |real| real.fetch_or(value, Ordering::SeqCst))
            }

            pub(crate) fn fetch_and(&self, value: $value, _: Ordering) -> $value {
                self.touch("and", |real| real.fetch_and(value, Ordering::SeqCst))
            }

            pub(crate) fn fetch_update(
                &self,
                _: Ordering,
                _: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.touch("update", |real| real.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update))
            }

            fn touch<R: Hash + Debug>(&self, what: &str, act: impl FnOnce(&$real) -> R) -> R {
                step();
                let result = act(&self.real);
                is_now(self.thing, &self.real.load(Ordering::SeqCst));
                saw(what, &result);
                result
            }
        }
    };
}

atomic!(AtomicU64, std::sync::atomic::AtomicU64, u64);
atomic!(AtomicBool, std::sync::atomic::AtomicBool, bool);

impl AtomicU64 {
    pub(crate) fn fetch_sub(&self, value: u64, _: Ordering) -> u64 {
        self.touch("sub", |real| real.fetch_sub(value, Ordering::SeqCst))
    }
}

/// A lock: who waits for it is not to be chosen.
#[derive(Debug)]
pub(crate) struct Mutex<T> {
    real: shuttle::sync::Mutex<T>,
    thing: usize,
}

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T: Debug> {
    real: shuttle::sync::MutexGuard<'a, T>,
    thing: usize,
}

impl<T: Debug> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        let thing = shared(&format!("{value:?}"));
        Self { real: shuttle::sync::Mutex::new(value), thing }
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, T>, PoisonError<MutexGuard<'_, T>>> {
        let real = self.real.lock().unwrap_or_else(PoisonError::into_inner);
        saw("lock", &format!("{:?}", *real));
        Ok(MutexGuard { real, thing: self.thing })
    }
}

impl<T: Debug> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.real
    }
}

impl<T: Debug> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.real
    }
}

impl<T: Debug> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        is_now(self.thing, &format!("{:?}", *self.real));
    }
}

/// Tokio's; beside it, what it keeps to itself: who was told, and whether a permit is there.
#[derive(Debug)]
pub(crate) struct Notify {
    real: Arc<tokio::sync::Notify>,
    calls: Arc<AtomicU32>,
    permit: Arc<AtomicU32>,
    permits: usize,
}

#[derive(Debug)]
pub(crate) struct OwnedNotified {
    real: Pin<Box<tokio::sync::futures::OwnedNotified>>,
    calls: Arc<AtomicU32>,
    permit: Arc<AtomicU32>,
    permits: usize,
    since: u32,
    is_told: u64,
}

thread_local! {
    /// The notifications of this run that somebody waits for: when they began to, and where it is noted that they are told.
    static WAITED: RefCell<Vec<(Arc<AtomicU32>, u32, u64)>> = RefCell::default();
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self { real: Arc::default(), calls: Arc::default(), permit: Arc::default(), permits: shared(&0) }
    }

    pub(crate) fn notify_waiters(&self) {
        step();
        self.real.notify_waiters();
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        WAITED.with_borrow(|waited| {
            for (_, since, is_told) in waited.iter().filter(|(of, ..)| Arc::ptr_eq(of, &self.calls)) {
                is_lent(*is_told, Some(&(calls > *since)));
            }
        });
        saw("notify waiters", &());
    }

    pub(crate) fn notify_one(&self) {
        step();
        self.real.notify_one();
        self.permit.store(1, Ordering::SeqCst);
        is_now(self.permits, &1);
        saw("notify one", &());
    }

    pub(crate) fn notified(&self) -> OwnedNotified {
        step();
        let since = self.calls.load(Ordering::SeqCst);
        let is_told = lend(&false);
        WAITED.with_borrow_mut(|waited| waited.push((Arc::clone(&self.calls), since, is_told)));
        saw("notified", &());
        OwnedNotified {
            real: Box::pin(Arc::clone(&self.real).notified_owned()),
            calls: Arc::clone(&self.calls),
            permit: Arc::clone(&self.permit),
            permits: self.permits,
            since,
            is_told,
        }
    }

    pub(crate) fn notified_owned(self: Arc<Self>) -> OwnedNotified {
        self.notified()
    }
}

impl OwnedNotified {
    /// No step: it is told of what comes after its making, enabled or not.
    pub(crate) fn enable(mut self: Pin<&mut Self>) -> bool {
        let told = self.real.as_mut().enable();
        saw("enable", &told);
        told
    }
}

impl Future for OwnedNotified {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        step();
        let told = self.real.as_mut().poll(cx);
        if told.is_ready() && self.calls.load(Ordering::SeqCst) == self.since {
            self.permit.store(0, Ordering::SeqCst);
            is_now(self.permits, &0);
        }
        saw("poll", &told.is_ready());
        told
    }
}

impl Drop for OwnedNotified {
    fn drop(&mut self) {
        // Nobody asks it any more.
        is_lent(self.is_told, None::<&bool>);
        WAITED.with_borrow_mut(|waited| waited.retain(|(.., is_told)| *is_told != self.is_told));
    }
}

/// Milliseconds since the story began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instant(u64);

#[derive(Default)]
struct Clock {
    now: u64,
    thing: usize,
    made: usize,
    /// Who waits for a time, by number.
    sleepers: BTreeMap<usize, (Instant, Waker)>,
    /// The clock itself, while nobody waits for a time.
    stands: Option<Waker>,
}

impl Clock {
    /// Whether somebody waits for a time that has not come.
    fn is_waited_for(&self) -> bool {
        self.sleepers.values().any(|(at, _)| at.0 > self.now)
    }
}

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

impl Instant {
    pub(crate) fn now() -> Self {
        let now = with_clock(|clock| clock.now);
        saw("now", &now);
        Self(now)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0 + u64::try_from(time.as_millis()).unwrap())
    }
}

fn with_clock<R>(act: impl FnOnce(&mut Clock) -> R) -> R {
    CLOCK.with_borrow_mut(|clock| act(clock.get_or_insert_default()))
}

/// Time stands at its beginning.
pub(crate) fn start_clock() {
    WAITED.with_borrow_mut(Vec::clear);
    CLOCK.set(Some(Clock { thing: shared(&0), ..Clock::default() }));
}

/// Waits until somebody waits for a time that has not come; `also` says whether the story does.
pub(crate) async fn time_is_waited_for(also: impl Fn(Instant) -> bool) {
    std::future::poll_fn(|cx| {
        with_clock(|clock| {
            if clock.is_waited_for() || also(Instant(clock.now)) {
                return Poll::Ready(());
            }
            clock.stands = Some(cx.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

/// The clock has to look again.
pub(crate) fn nudge_clock() {
    with_clock(|clock| clock.stands.take()).into_iter().for_each(Waker::wake);
}

/// A millisecond goes by.
pub(crate) fn tick() {
    step();
    let due: Vec<Waker> = with_clock(|clock| {
        clock.now += 1;
        is_now(clock.thing, &clock.now);
        let now = Instant(clock.now);
        let due = clock.sleepers.values().filter(|(at, _)| *at <= now);
        due.map(|(_, waker)| waker.clone()).collect()
    });
    saw("time goes on", &());
    due.into_iter().for_each(Waker::wake);
}

/// Somebody who waits for a time, as long as it lives.
struct Sleeper(usize);

impl Sleeper {
    fn new() -> Self {
        with_clock(|clock| {
            clock.made += 1;
            Self(clock.made)
        })
    }

    fn sleep(&self, at: Instant, waker: &Waker) {
        with_clock(|clock| clock.sleepers.insert(self.0, (at, waker.clone())));
        nudge_clock();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        with_clock(|clock| clock.sleepers.remove(&self.0));
    }
}

/// Whether `what` came true before this moment.
pub(crate) async fn timeout_at<F: Future>(at: Instant, what: F) -> Result<F::Output, ()> {
    let mut what = std::pin::pin!(what);
    let sleeper = Sleeper::new();
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = what.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if Instant::now() >= at {
            return Poll::Ready(Err(()));
        }
        sleeper.sleep(at, cx.waker());
        Poll::Pending
    })
    .await
}
