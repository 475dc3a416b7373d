//! The operator's wish to stop, and how a waiting step learns of it.
//! Refuses to know signals and terminals.

use tokio::sync::watch;

/// Asks for a stop. Dropping it leaves things as they are.
#[derive(Debug)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// Asks the run to come to rest at the next safe point.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

/// The listener's end: cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(Option<watch::Receiver<bool>>);

impl Stop {
    /// A handle and its listener.
    pub fn pair() -> (StopHandle, Self) {
        let (sender, receiver) = watch::channel(false);
        (StopHandle(sender), Self(Some(receiver)))
    }

    /// One that nobody ever asks.
    pub fn never() -> Self {
        Self(None)
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.as_ref().is_some_and(|receiver| *receiver.borrow())
    }

    /// Ends when a stop is asked for; else never.
    pub async fn requested(&self) {
        if let Some(receiver) = &self.0
            && receiver.clone().wait_for(|asked| *asked).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_heard_by_every_clone_and_a_dropped_handle_is_not_a_stop() {
        let (handle, stop) = Stop::pair();
        let other = stop.clone();
        assert!(!stop.is_requested());
        handle.request();
        stop.requested().await;
        other.requested().await;
        assert!(other.is_requested());

        let (handle, stop) = Stop::pair();
        drop(handle);
        let heard = tokio::time::timeout(std::time::Duration::from_millis(5), stop.requested()).await;
        assert!(heard.is_err());
        assert!(!Stop::never().is_requested());
    }
}
