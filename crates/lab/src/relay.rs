//! Delays, reorders and repeats the packets that the router forwards, and forges resets and
//! refusals, in user space.
//!
//! Kernels without netem can drop packets, but not delay them. So the router routes incoming
//! packets through a TUN device of its own, and a thread sends them back when they are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use systole_core::Span;
use systole_core::random::Random;
use systole_net::Clock;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tun::Tun;

use self::forge::Flow;
use self::transit::{Packet, Transit};
use crate::namespace::Namespace;
use crate::network::GATEWAY;
use crate::trouble::Trouble;

mod forge;
mod transit;

/// Name of the TUN device in the router.
pub(crate) const DEVICE: &str = "delay0";

/// Length of the longest packet of a virtual cable.
const LONGEST: usize = 1_500;
/// The router's routing table for packets that have not been delayed yet.
const TABLE: &str = "100";

/// How a relay passes packets on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shape {
    /// Delay of packets to the gateway.
    pub(crate) inwards: Span,
    /// Delay of packets from the gateway.
    pub(crate) outwards: Span,
    /// Maximum of a random delay of each packet, by which packets overtake each other.
    pub(crate) jitter: Span,
    /// Percentage of packets that are sent twice.
    pub(crate) doubled: u8,
    /// Whether each IPv6 segment is answered by a refusal instead, as from a host that knows no
    /// TCP: nftables has no such answer.
    pub(crate) refuses: bool,
}

#[derive(Debug)]
enum Order {
    Shape(Shape),
    /// Ends the link under test with a reset to each end, as from the other.
    Reset,
}

/// A running relay. When dropped, its device vanishes and packets no longer pass.
#[derive(Debug)]
pub(crate) struct Relay {
    orders: UnboundedSender<Order>,
    effects: Arc<AtomicU64>,
}

impl Relay {
    /// Starts to pass all packets that arrive on one of `ports` through the relay.
    pub(crate) fn start(
        router: &Namespace,
        ports: &[String],
        (shape, seed): (Shape, u64),
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
        for family in ["-4", "-6"] {
            let route = format!("{family} route add default dev {DEVICE} table {TABLE}");
            router.ip_output(&route)?;
            for port in ports {
                router.ip_output(&format!("{family} rule add iif {port} lookup {TABLE}"))?;
            }
        }
        let (orders, received) = unbounded_channel();
        let effects = Arc::<AtomicU64>::default();
        let relaying = Relaying {
            tun,
            clock,
            shape,
            random: Random::new(seed),
            transit: Transit::default(),
            flow: Flow::default(),
            effects: Arc::clone(&effects),
            ordered: false,
        };
        let thread = std::thread::Builder::new();
        thread.spawn(move || runtime.block_on(relaying.run(received))).map_err(&doing)?;
        Ok(Relay { orders, effects })
    }

    /// Changes how packets are passed on, from the next one on.
    pub(crate) fn shape(&self, shape: Shape) -> Result<(), Trouble> {
        self.order(Order::Shape(shape))
    }

    /// Forges a reset to each end of the link under test.
    pub(crate) fn reset(&self) -> Result<(), Trouble> {
        self.order(Order::Reset)
    }

    /// Returns the number of packets that met the orders since the last call: passed on in another
    /// shape than the first, or forged.
    pub(crate) fn effects(&self) -> u64 {
        self.effects.swap(0, Ordering::Relaxed)
    }

    fn order(&self, order: Order) -> Result<(), Trouble> {
        self.orders.send(order).map_err(|_| Trouble::new("the relay has ended"))
    }
}

/// The state of the relay's thread.
struct Relaying {
    tun: Tun,
    clock: Clock,
    shape: Shape,
    random: Random,
    transit: Transit,
    flow: Flow,
    effects: Arc<AtomicU64>,
    /// Whether the shape was ordered during the run.
    ordered: bool,
}

impl Relaying {
    async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        let mut buffer = [0; LONGEST];
        loop {
            while let Some(packet) = self.transit.due(self.clock.monotonic()) {
                // A failure counts as loss in a router.
                let sent = self.tun.try_send(&packet.bytes).is_ok();
                self.effects.fetch_add(u64::from(sent && packet.ordered), Ordering::Relaxed);
            }
            let next = self.transit.next().map(|due| due.less(self.clock.monotonic()));
            let timer = async {
                match next {
                    Some(left) => tokio::time::sleep(left.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(Order::Shape(shape)) => {
                        self.shape = shape;
                        self.ordered = true;
                    }
                    Some(Order::Reset) => self.reset(),
                },
                received = self.tun.recv(&mut buffer) => {
                    let Ok(length) = received else { return };
                    self.take(buffer.get(..length).unwrap_or_default());
                }
                () = timer => {}
            }
        }
    }

    fn take(&mut self, packet: &[u8]) {
        self.flow.observe(packet);
        if self.shape.refuses
            && let Some(refusal) = forge::refusal(packet)
        {
            return self.send(&refusal);
        }
        let inwards = forge::destination(packet) == Some(GATEWAY);
        let delay = if inwards { self.shape.inwards } else { self.shape.outwards };
        let now = self.clock.monotonic();
        let copies = 1 + u8::from(self.random.below(100) < self.shape.doubled.into());
        for _ in 0..copies {
            let jitter = self.random.up_to(self.shape.jitter);
            let packet = Packet { bytes: packet.to_vec(), ordered: self.ordered };
            self.transit.push(now + delay, jitter, inwards, packet);
        }
    }

    fn reset(&mut self) {
        self.flow.resets().for_each(|packet| self.send(&packet));
    }

    fn send(&self, forged: &[u8]) {
        let sent = self.tun.try_send(forged).is_ok();
        self.effects.fetch_add(u64::from(sent), Ordering::Relaxed);
    }
}
