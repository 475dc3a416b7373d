//! Owns work that is begun ahead of the step that wants it. Refuses to let it outlive the wish: it is given up with its
//! handle.

use std::fmt::Display;

use tokio_util::task::AbortOnDropHandle;

/// Work under way.
pub(crate) type Begun<T, E> = AbortOnDropHandle<Result<T, E>>;

/// Begins it.
pub(crate) fn spawn<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Begun<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// What came of it, if it was begun and came to something. It is good for one try: who gets nothing does the work anew.
pub(crate) async fn outcome<T, E: Display>(begun: Option<Begun<T, E>>, what: &str) -> Option<T> {
    match begun?.await {
        Ok(Ok(outcome)) => Some(outcome),
        Ok(Err(error)) => {
            tracing::debug!(%error, "{what} came to nothing, doing it anew");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "{what} ended unasked, doing it anew");
            None
        }
    }
}
