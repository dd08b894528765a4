//! A proxy in the router, between the peer and the gateway: it ends both connections itself, so its
//! kernel acknowledges for a far end that it may no longer reach.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::namespace::Namespace;
use crate::trouble::Trouble;

/// A running proxy. When dropped, it ends with its connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    /// Starts a proxy in the router, from `port` on any of its addresses to `target`.
    pub(crate) fn start(
        router: &Namespace,
        port: u16,
        target: SocketAddr,
    ) -> Result<Proxy, Trouble> {
        let doing = Trouble::while_doing("a proxy");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().map_err(&doing)?;
        let (stop, stopped) = oneshot::channel();
        // The thread is started inside the namespace, so its later connections are made there.
        let started = router.enter(|| {
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
            let proxying = move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, target) => {}
                    }
                });
            };
            std::thread::Builder::new().spawn(proxying)
        })?;
        started.map(|_| Proxy { _stop: stop }).map_err(&doing)
    }
}

async fn accept(listener: TcpListener, target: SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            // A target that refuses ends the connection, which its peer sees.
            if let Ok(mut far) = TcpStream::connect(target).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
