//! Delays every packet that the router forwards, in user space.
//!
//! Kernels without netem can drop packets, but not delay them. So the router routes incoming
//! packets through a TUN device of its own, and a thread sends them back after the delay.

use std::collections::VecDeque;

use systole_core::Span;
use systole_net::Clock;
use tokio::sync::oneshot;
use tokio_tun::Tun;

use crate::namespace::Namespace;
use crate::trouble::Trouble;

/// Name of the TUN device in the router.
pub(crate) const DEVICE: &str = "delay0";

/// Maximum of packets in transit. More are dropped, as in a full queue of a router; this is far
/// more than all heartbeats of a lab within one delay.
const MAX_IN_TRANSIT: usize = 10_000;
/// Length of the longest packet of a virtual cable.
const LONGEST: usize = 1_500;
/// The router's routing table for packets that have not been delayed yet.
const TABLE: &str = "100";

/// A running relay. When dropped, its device vanishes and packets no longer pass.
#[derive(Debug)]
pub(crate) struct Relay {
    _stop: oneshot::Sender<()>,
}

impl Relay {
    /// Starts to delay all packets that arrive on one of `ports` by `delay`.
    pub(crate) fn start(
        router: &Namespace,
        ports: &[String],
        delay: Span,
        clock: Clock,
    ) -> Result<Relay, Trouble> {
        let doing = Trouble::while_doing("a relay that delays packets");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().map_err(&doing)?;
        let tun = router.enter(|| {
            let _guard = runtime.enter();
            Tun::builder().name(DEVICE).up().build()
        })?;
        let tun = tun.map_err(|error| Trouble::new(format!("a TUN device: {error}")))?.pop();
        let tun = tun.ok_or_else(|| Trouble::new("no TUN device"))?;
        // Packets come back from the device unchanged, but on another interface.
        router.set(&[("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/delay0/rp_filter", "0")])?;
        router.ip(&[&format!("route add default dev {DEVICE} table {TABLE}")])?;
        for port in ports {
            router.ip(&[&format!("rule add iif {port} lookup {TABLE}")])?;
        }
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new();
        let relaying = move || runtime.block_on(relay(tun, delay, clock, stopped));
        thread.spawn(relaying).map_err(&doing)?;
        Ok(Relay { _stop: stop })
    }
}

async fn relay(tun: Tun, delay: Span, clock: Clock, mut stopped: oneshot::Receiver<()>) {
    let mut waiting: VecDeque<(Span, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0; LONGEST];
    loop {
        while let Some((due, packet)) = waiting.front() {
            if *due > clock.monotonic() {
                break;
            }
            // A failure counts as loss in a router.
            let _ = tun.try_send(packet);
            waiting.pop_front();
        }
        let next = waiting.front().map(|(due, _)| due.less(clock.monotonic()));
        let timer = async {
            match next {
                Some(left) => tokio::time::sleep(left.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut stopped => return,
            received = tun.recv(&mut buffer) => {
                let Ok(length) = received else { return };
                if waiting.len() < MAX_IN_TRANSIT {
                    let packet = buffer.get(..length).unwrap_or_default().to_vec();
                    waiting.push_back((clock.monotonic() + delay, packet));
                }
            }
            () = timer => {}
        }
    }
}
