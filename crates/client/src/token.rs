//! The token of each login: a fixed one, or one that the application gives anew.

use std::fmt::{self, Display};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use systole_core::wire::{CloseReason, MAX_TOKEN};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::{ConnectError, Options};

/// Maximum number of characters of what an error of a source says: enough for a sentence with a
/// path.
const MAX_WHY: usize = 512;

/// Why a source is asked for a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TokenRequest {
    /// Whether the server has refused the last token of this source. A source that keeps a token
    /// must then get another: the same one is not tried again.
    pub refused: bool,
}

/// Where a client gets the token for each login; see [`Options::token_source`].
///
/// The client asks before each attempt to connect, and waits for [`Options::token_timeout`] at
/// most. A source that fails, panics, or gives nothing in time is reported as
/// [`Event::AttemptFailed`](crate::Event::AttemptFailed) with [`ConnectError::Token`], and another
/// attempt follows as after a loss. Each client asks once at a time; clients with a copy of the
/// same source ask independently of each other.
///
/// What a source gives appears in no event, no error and no `Debug` output. Its errors do: they
/// must not quote a token.
///
/// ```
/// use systole_client::Options;
/// use systole_client::token::TokenSource;
///
/// # async fn fetch(_: bool) -> Result<String, std::io::Error> { Ok(String::new()) }
/// let mut options = Options::default();
/// options.token_source = Some(TokenSource::new(|request| fetch(request.refused)));
/// options.token_source =
///     Some(TokenSource::blocking(|_| std::fs::read_to_string("/run/secrets/token")));
/// ```
#[derive(Clone)]
pub struct TokenSource(Kind);

type Given = Result<Vec<u8>, String>;
type Giving = Pin<Box<dyn Future<Output = Given> + Send>>;

#[derive(Clone)]
enum Kind {
    Async(Arc<dyn Fn(TokenRequest) -> Giving + Send + Sync>),
    Blocking(Arc<dyn Fn(TokenRequest) -> Given + Send + Sync>),
}

impl TokenSource {
    /// Creates a source from an async closure, which must not block its thread.
    ///
    /// The future runs as a task of the client's runtime. It is dropped, at whatever it awaits, if
    /// the time limit passes, the client is closed or dropped, or a call to
    /// [`Client::connect`](crate::Client::connect) is canceled; the next attempt calls the closure
    /// again. So it must be cancel-safe: a token that can be used only once, and was fetched but
    /// not returned, is lost with it.
    pub fn new<S, F, T, E>(source: S) -> TokenSource
    where
        S: Fn(TokenRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<Vec<u8>>,
        E: Display,
    {
        TokenSource(Kind::Async(Arc::new(move |request| {
            let giving = source(request);
            Box::pin(async move { giving.await.map(T::into).map_err(|error| why(&error)) })
        })))
    }

    /// Creates a source from a closure that may block, such as one that reads a file.
    ///
    /// Each call has a thread of its own, at most one for each client. A call that has not returned
    /// in time goes on, since a thread cannot be stopped; its token is not used, and no other call
    /// begins before it has returned. A runtime that ends does not wait for it.
    pub fn blocking<S, T, E>(source: S) -> TokenSource
    where
        S: Fn(TokenRequest) -> Result<T, E> + Send + Sync + 'static,
        T: Into<Vec<u8>>,
        E: Display,
    {
        TokenSource(Kind::Blocking(Arc::new(move |request| {
            source(request).map(T::into).map_err(|error| why(&error))
        })))
    }

    /// Asks the closure; `calls` admits one blocking call at a time.
    async fn ask(&self, request: TokenRequest, calls: &Arc<Semaphore>) -> Given {
        let panicked = || Err("its source panicked".to_owned());
        match &self.0 {
            Kind::Async(source) => {
                let source = Arc::clone(source);
                // A task, so that a panic does not end the client; the set ends it when dropped.
                let mut task = JoinSet::new();
                task.spawn(async move { source(request).await });
                task.join_next().await.and_then(Result::ok).unwrap_or_else(panicked)
            }
            Kind::Blocking(source) => {
                let source = Arc::clone(source);
                // It fails only if the semaphore is closed, which it never is.
                let permit = Arc::clone(calls).acquire_owned().await;
                let (sender, answer) = oneshot::channel();
                let work = move || {
                    let given = source(request);
                    drop(permit);
                    // The client may have stopped waiting.
                    let _ = sender.send(given);
                };
                let name = "systole-token".to_owned();
                if let Err(error) = thread::Builder::new().name(name).spawn(work) {
                    return Err(format!("no thread to ask for it: {error}"));
                }
                answer.await.unwrap_or_else(|_| panicked())
            }
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").finish_non_exhaustive()
    }
}

/// Returns what an error says, cut to [`MAX_WHY`].
fn why(error: &dyn Display) -> String {
    let why = error.to_string();
    match why.char_indices().nth(MAX_WHY) {
        Some((end, _)) => format!("{}…", &why[..end]),
        None => why,
    }
}

/// The tokens of a client's logins.
pub(crate) struct Tokens {
    fixed: Vec<u8>,
    source: Option<TokenSource>,
    limit: Duration,
    calls: Arc<Semaphore>,
    /// The token of the login under way, if the source gave it.
    shown: Vec<u8>,
    /// The token of the source that the server refused.
    refused: Option<Vec<u8>>,
}

impl Tokens {
    pub(crate) fn new(options: &Options) -> Tokens {
        Tokens {
            fixed: options.token.clone(),
            // Other codecs have no field for a token.
            source: options.token_source.clone().filter(|_| options.codec.has_handshake()),
            limit: options.token_timeout,
            calls: Arc::new(Semaphore::new(1)),
            shown: Vec::new(),
            refused: None,
        }
    }

    /// Returns whether another login may have another token.
    pub(crate) fn are_renewed(&self) -> bool {
        self.source.is_some()
    }

    /// Returns the token for the next login. A canceled call leaves everything as it was.
    pub(crate) async fn next(&mut self) -> Result<Box<[u8]>, ConnectError> {
        let Some(source) = &self.source else {
            return Ok(self.fixed.as_slice().into());
        };
        let request = TokenRequest { refused: self.refused.is_some() };
        let asking = tokio::time::timeout(self.limit, source.ask(request, &self.calls));
        let given = asking.await.unwrap_or_else(|_| {
            let limit = self.limit;
            Err(format!("its source has given none in {limit:?}"))
        });
        let given = given.map_err(|why| ConnectError::Token { why, again: false });
        self.shown = self.check(given?)?;
        Ok(self.shown.as_slice().into())
    }

    fn check(&self, token: Vec<u8>) -> Result<Vec<u8>, ConnectError> {
        if token.len() > MAX_TOKEN {
            let why = format!("what its source gave is longer than {MAX_TOKEN} bytes");
            return Err(ConnectError::Token { why, again: false });
        }
        if self.refused.as_ref() == Some(&token) {
            let why = "its source gave again the one that the server refused".to_owned();
            return Err(ConnectError::Token { why, again: true });
        }
        Ok(token)
    }

    /// Takes the result of a login with the last token.
    pub(crate) fn note<T>(&mut self, login: &Result<T, ConnectError>) {
        let shown = std::mem::take(&mut self.shown);
        if !self.are_renewed() {
            return;
        }
        match login {
            Ok(_) => self.refused = None,
            Err(error) => {
                let farewell = error.farewell();
                if farewell.is_some_and(|close| close.reason == CloseReason::Unauthorized) {
                    self.refused = Some(shown);
                }
            }
        }
    }
}
