//! The stage itself: each fault between machines, as real packets meet it.

use anyhow::{Context, Result, ensure};
use e2e::{Fault, Loss, Machine, Model, Network, Place, until};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// Machines of these names at one switch, started side by side.
pub(crate) fn machines(
    place: &Place,
    network: &Arc<Network>,
    names: &[&str],
    model: impl Fn(&str) -> Result<Model> + Sync,
) -> Result<Vec<Machine>> {
    let start = &|name: &str| Machine::plugged(place, model(name)?, network);
    std::thread::scope(|scope| {
        let all: Vec<_> = names.iter().map(|name| scope.spawn(move || start(name))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// A socket for datagrams in a machine.
pub(crate) fn udp(machine: &Machine, at: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = machine.inside(|| Ok(UdpSocket::bind((at, port))?))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What came, from whom.
pub(crate) fn received(socket: &UdpSocket) -> Result<Option<(String, SocketAddr)>> {
    let mut bytes = [0; 100];
    match socket.recv_from(&mut bytes) {
        Ok((length, from)) => Ok(Some((String::from_utf8_lossy(&bytes[..length]).into_owned(), from))),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Two machines' sockets of one family, and their names.
struct Pair<'a> {
    network: &'a Network,
    names: [&'a str; 2],
    sockets: [UdpSocket; 2],
}

impl<'a> Pair<'a> {
    fn new(network: &'a Network, machines: [&'a Machine; 2], v6: bool) -> Result<Pair<'a>> {
        let names = machines.map(Machine::name);
        let at = |name: &str| -> Result<IpAddr> {
            Ok(if v6 { network.address_v6(name)?.into() } else { network.address(name)?.into() })
        };
        let sockets = [udp(machines[0], at(names[0])?, 0)?, udp(machines[1], at(names[1])?, 0)?];
        Ok(Pair { network, names, sockets })
    }

    /// Sends again and again until it comes through: after a fault, the kernel may still be looking for its neighbour.
    fn passes(&self, from: usize) -> Result<()> {
        let (sender, receiver) = (&self.sockets[from], &self.sockets[1 - from]);
        let to = receiver.local_addr()?;
        until(&format!("a datagram from {}", self.names[from]), SOON, || {
            sender.send_to(b"hello", to)?;
            Ok(received(receiver)?.map(|_| ()))
        })?;
        self.drain()
    }

    /// Sends until the switch has taken it, and sees that nothing came.
    fn is_lost(&self, from: usize) -> Result<()> {
        self.drain()?;
        let [sender, receiver] = [from, 1 - from].map(|n| (self.names[n], &self.sockets[n]));
        let lost = || Ok::<_, anyhow::Error>(self.network.traffic(sender.0, receiver.0)?.lost);
        let before = lost()?;
        until(&format!("a lost frame from {}", sender.0), SOON, || {
            sender.1.send_to(b"lost", receiver.1.local_addr()?)?;
            Ok((lost()? > before).then_some(()))
        })?;
        ensure!(received(receiver.1)?.is_none(), "what was sent from {} came through", sender.0);
        Ok(())
    }

    fn drain(&self) -> Result<()> {
        for socket in &self.sockets {
            while received(socket)?.is_some() {}
        }
        Ok(())
    }
}

#[test]
fn cuts_hold_for_whom_they_name_until_they_are_lifted() -> Result<()> {
    let place = Place::new("a-switch")?;
    let network = Network::new(&["ant", "bee", "cow"])?;
    let all = machines(&place, &network, &["ant", "bee", "cow"], Model::new)?;
    let [ant, bee, cow] = &all[..] else { unreachable!() };
    let mut pairs = Vec::new();
    for v6 in [false, true] {
        for two in [[ant, bee], [ant, cow], [bee, cow]] {
            pairs.push(Pair::new(&network, two, v6)?);
        }
    }
    // Which of ant>bee, bee>ant, ant>cow, cow>ant, bee>cow, cow>bee is cut.
    let one_way = Fault::one_way("ant", "bee");
    let cases = [
        (vec![], [false; 6]),
        (vec![one_way.clone()], [true, false, false, false, false, false]),
        (vec![Fault::cut("ant", "bee")], [true, true, false, false, false, false]),
        (vec![one_way, Fault::isolated("cow")], [true, false, true, true, true, true]),
        (vec![Fault::partition(&["ant", "bee"], &["cow"])], [false, false, true, true, true, true]),
        (vec![], [false; 6]),
    ];
    for (faults, cut) in cases {
        faults.iter().try_for_each(|fault| network.set(fault))?;
        for (n, cut) in cut.into_iter().enumerate() {
            for family in 0..2 {
                let pair = &pairs[family * 3 + n / 2];
                let seen = if cut { pair.is_lost(n % 2) } else { pair.passes(n % 2) };
                seen.with_context(|| format!("with {faults:?}, {:?}, direction {}", pair.names, n % 2))?;
            }
        }
        // The test reaches a machine whatever is wrong between machines.
        cow.inside(|| Ok(TcpListener::bind("0.0.0.0:7000")?)).and_then(|listener| {
            TcpStream::connect_timeout(&(cow.address(), 7000).into(), SOON)?;
            drop(listener);
            Ok(())
        })?;
        faults.iter().try_for_each(|fault| network.lift(fault))?;
    }
    ensure!(network.set(&Fault::cut("ant", "dog")).is_err(), "nobody is named dog");
    ensure!(network.lift(&Fault::cut("ant", "bee")).is_err(), "it was lifted");
    assert_eq!(ant.ok(&["getent", "hosts", "bee"])?.split_whitespace().last(), Some("bee"));
    Ok(())
}

#[test]
fn a_connection_outlives_a_one_way_cut_and_a_bad_line() -> Result<()> {
    let place = Place::new("a-switch")?;
    let network = Network::new(&["ant", "bee"])?;
    let all = machines(&place, &network, &["ant", "bee"], Model::new)?;
    let [ant, bee] = &all[..] else { unreachable!() };
    let at = SocketAddr::from((network.address_v6("bee")?, 7000));
    let listener = bee.inside(|| Ok(TcpListener::bind(at)?))?;
    let mut from_ant = ant.inside(|| Ok(TcpStream::connect_timeout(&at, SOON)?))?;
    let (mut at_bee, _) = listener.accept()?;
    for stream in [&from_ant, &at_bee] {
        stream.set_read_timeout(Some(SOON))?;
    }
    let deaf = Fault::one_way("ant", "bee");
    network.set(&deaf)?;
    let before = network.traffic("ant", "bee")?;
    from_ant.write_all(b"a")?;
    at_bee.write_all(b"b")?;
    let mut byte = [0];
    from_ant.read_exact(&mut byte)?;
    assert_eq!(&byte, b"b", "the way back is whole");
    until("a lost frame", SOON, || Ok((network.traffic("ant", "bee")?.lost > before.lost).then_some(())))?;
    assert_eq!(network.traffic("ant", "bee")?.passed, before.passed);
    at_bee.set_nonblocking(true)?;
    assert_eq!(at_bee.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
    at_bee.set_nonblocking(false)?;
    network.lift(&deaf)?;
    at_bee.read_exact(&mut byte)?;
    assert_eq!(&byte, b"a", "what was lost is sent again");

    // Some of it is lost, all of it arrives.
    network.set(&Fault::slow("ant", "bee", Duration::from_millis(5), 5))?;
    let before = network.traffic("ant", "bee")?;
    let (sent, mut arrived) = (vec![7; 500_000], vec![0; 500_000]);
    let sender = std::thread::spawn(move || from_ant.write_all(&sent).map(|()| from_ant));
    at_bee.read_exact(&mut arrived)?;
    ensure!(arrived.iter().all(|byte| *byte == 7));
    let _open = sender.join().unwrap()?;
    let after = network.traffic("ant", "bee")?;
    ensure!(after.lost > before.lost && after.passed > before.passed + 300, "{before:?} {after:?}");
    Ok(())
}

#[test]
fn a_slow_line_takes_its_time_both_ways_and_no_other_line_does() -> Result<()> {
    let place = Place::new("a-switch")?;
    let network = Network::new(&["ant", "bee", "cow"])?;
    let all = machines(&place, &network, &["ant", "bee", "cow"], Model::new)?;
    let [ant, bee, cow] = &all[..] else { unreachable!() };
    let (far, near) = (Pair::new(&network, [ant, bee], false)?, Pair::new(&network, [ant, cow], false)?);
    let each_way = Duration::from_millis(100);
    let slow = Fault::slow("bee", "ant", each_way, 0);
    let there_and_back = |pair: &Pair| -> Result<Duration> {
        // Neighbours first: asking for them takes the line twice, too.
        pair.passes(0)?;
        pair.passes(1)?;
        let [one, other] = &pair.sockets;
        let start = Instant::now();
        one.send_to(b"there", other.local_addr()?)?;
        until("there", SOON, || received(other))?;
        other.send_to(b"back", one.local_addr()?)?;
        until("back", SOON, || Ok(received(one)?.filter(|(said, _)| said == "back")))?;
        Ok(start.elapsed())
    };
    let below = |pair: &Pair, what: &str| until(what, SOON, || Ok((there_and_back(pair)? < each_way).then_some(())));
    below(&far, "a fast answer before")?;
    network.set(&slow)?;
    let took = there_and_back(&far)?;
    ensure!(took >= 2 * each_way, "there and back took {took:?}");
    below(&near, "a fast answer of another")?;
    network.lift(&slow)?;
    below(&far, "a fast answer after")?;

    network.set(&Fault::all_slow(Duration::ZERO, 50))?;
    let before = network.traffic("ant", "cow")?;
    for _ in 0..200 {
        near.sockets[0].send_to(b"some", near.sockets[1].local_addr()?)?;
    }
    until("half of them", SOON, || {
        let now = network.traffic("ant", "cow")?;
        let (passed, lost) = (now.passed - before.passed, now.lost - before.lost);
        ensure!(passed + lost < 200 || (40..160).contains(&lost), "{lost} of {} were lost", passed + lost);
        Ok((passed + lost >= 200).then_some(()))
    })
}

/// A machine that answers each line with the same line, in a process of its own.
fn echo(machine: &Machine) -> Result<TcpStream> {
    machine.ok(&["sh", "-c", "setsid busybox nc -ll -p 7000 -e busybox cat >/dev/null 2>&1 </dev/null &"])?;
    let at = (machine.address(), 7000).into();
    until("the echo", SOON, || Ok(TcpStream::connect_timeout(&at, SOON).ok()))
}

#[test]
fn a_frozen_machine_says_nothing_and_goes_on_where_it_was() -> Result<()> {
    let place = Place::new("a-switch")?;
    let network = Network::new(&["ant", "bee"])?;
    let all = machines(&place, &network, &["ant", "bee"], Model::new)?;
    let [ant, bee] = &all[..] else { unreachable!() };
    let mut peer = echo(bee)?;
    peer.set_read_timeout(Some(SOON))?;
    let mut byte = [0];
    peer.write_all(b"1")?;
    peer.read_exact(&mut byte)?;
    bee.freeze()?;
    let before = network.traffic(e2e::network::TEST, "bee")?.lost;
    peer.write_all(b"2")?;
    let lost = || Ok((network.traffic(e2e::network::TEST, "bee")?.lost > before).then_some(()));
    until("a frame for the frozen", SOON, lost)?;
    ensure!(bee.run(&["true"]).is_err() && bee.freeze().is_err(), "it is frozen");
    assert_eq!(ant.ok(&["echo", "awake"])?, "awake\n");
    bee.thaw()?;
    peer.read_exact(&mut byte)?;
    assert_eq!(&byte, b"2", "what was lost meanwhile is sent again and answered");

    // The plug of a frozen machine is pulled as any other's.
    bee.freeze()?;
    bee.power_cut(Loss::Everything)?;
    bee.boot()?;
    ensure!(bee.processes("busybox")?.is_empty(), "what ran is gone");
    let pair = Pair::new(&network, [ant, bee], true)?;
    pair.passes(0)?;
    pair.passes(1)
}
