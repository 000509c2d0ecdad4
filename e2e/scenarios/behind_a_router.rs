//! The stage itself: what a router that translates addresses does to who is behind it.

use crate::a_switch::{machines, received, udp};
use anyhow::{Context, Result, ensure};
use e2e::network::TEST;
use e2e::{Machine, Model, Nat, Network, Place, until};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Where each machine listens.
const PORT: u16 = 7443;

/// Two machines on the open network, which has ports for two routers.
fn open(place: &Place) -> Result<(Arc<Network>, Vec<Machine>)> {
    let network = Network::new(&["ant", "bee", "home", "office"])?;
    let all = machines(place, &network, &["ant", "bee"], Model::new)?;
    Ok((network, all))
}

/// Sends until the other has it. Returns where it came from.
fn reaches(from: &UdpSocket, to: &UdpSocket, at: SocketAddr) -> Result<SocketAddr> {
    // Unlike any before, as some may still be on their way.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let word = format!("word {}", NEXT.fetch_add(1, Ordering::Relaxed));
    let seen = until(&format!("a datagram for {at}"), SOON, || {
        from.send_to(word.as_bytes(), at)?;
        Ok(received(to)?.filter(|(said, _)| *said == word))
    });
    Ok(seen?.1)
}

/// What comes next.
fn next(socket: &UdpSocket) -> Result<String> {
    Ok(until("a datagram", SOON, || received(socket))?.0)
}

#[test]
fn a_mapping_is_as_its_kind_says() -> Result<()> {
    let place = Place::new("behind-a-router")?;
    let (network, all) = open(&place)?;
    let [ant, bee] = &all[..] else { unreachable!() };
    let sockets = [udp(ant, ANY, PORT)?, udp(ant, ANY, PORT + 1)?, udp(bee, ANY, PORT)?];
    let peers =
        [(ant.address(), PORT).into(), (ant.address(), PORT + 1).into(), SocketAddr::from((bee.address(), PORT))];
    for (name, port, nat) in [("dog", "home", Nat::EndpointIndependent), ("eel", "office", Nat::Symmetric)] {
        let inner = network.behind(port, nat, &[name])?;
        let machine = Machine::plugged(&place, Model::new(name)?, &inner)?;
        let own = udp(&machine, ANY, PORT)?;
        let mut ports = Vec::new();
        for (socket, at) in sockets.iter().zip(peers) {
            let seen = reaches(&own, socket, at)?;
            assert_eq!(seen.ip(), network.address(port)?, "behind the router's address");
            ports.push(seen.port());
            socket.send_to(b"answer", seen)?;
            assert_eq!(next(&own)?, "answer");
            // The same peer finds the same port again.
            assert_eq!(reaches(&own, socket, at)?, seen);
        }
        match nat {
            Nat::EndpointIndependent => assert_eq!(ports, [PORT; 3]),
            Nat::Symmetric => ensure!(ports[0] != ports[1] || ports[1] != ports[2], "{ports:?}"),
        }
        // A stranger who knows the port does not come in by it; who was asked does.
        let stranger = udp(bee, ANY, PORT + 2)?;
        let before = network.traffic("bee", port)?.passed;
        stranger.send_to(b"stranger", (network.address(port)?, ports[2]))?;
        until("the stranger's frame", SOON, || Ok((network.traffic("bee", port)?.passed > before).then_some(())))?;
        // Nor past the router, by way of the test, which is in both networks.
        let before = network.traffic("bee", TEST)?.passed;
        stranger.send_to(b"stranger", (machine.address(), PORT))?;
        until("the stranger's next", SOON, || Ok((network.traffic("bee", TEST)?.passed > before).then_some(())))?;
        sockets[2].send_to(b"friend", (network.address(port)?, ports[2]))?;
        assert_eq!(next(&own)?, "friend");

        let listener = ant.inside(|| Ok(TcpListener::bind((ANY, PORT))?))?;
        let to = (ant.address(), PORT).into();
        let _connected = machine.inside(|| Ok(TcpStream::connect_timeout(&to, SOON)?))?;
        assert_eq!(listener.accept()?.1.ip(), network.address(port)?);
        assert_eq!(machine.ok(&["echo", "the test does"])?, "the test does\n");
        TcpStream::connect_timeout(&(machine.address(), 1).into(), SOON).expect_err("nobody listens there");
    }
    Ok(())
}

/// What two machines behind routers see of each other after both have sent what opens the way, if it can be opened.
fn punched(nats: [Nat; 2]) -> Result<[String; 2]> {
    let place = Place::new("behind-a-router")?;
    let network = Network::new(&["ant", "home", "office"])?;
    let ant = Machine::plugged(&place, Model::new("ant")?, &network)?;
    let broker = udp(&ant, ANY, PORT)?;
    let inner = [network.behind("home", nats[0], &["dog"])?, network.behind("office", nats[1], &["eel"])?];
    let names = ["dog", "eel"];
    let mut sockets = Vec::new();
    for (name, inner) in names.iter().zip(&inner) {
        let machine = Machine::plugged(&place, Model::new(name)?, inner)?;
        sockets.push((udp(&machine, ANY, PORT)?, machine));
    }
    let seen = [0, 1].map(|n| reaches(&sockets[n].0, &broker, (ant.address(), PORT).into()));
    let [dog, eel] = seen;
    let seen = [dog?, eel?];
    // Each to where the broker saw the other, in turn, more than once: the first opens the own router only.
    for _ in 0..3 {
        for n in [0, 1] {
            let from_to = [["home", "office"], ["office", "home"]][n];
            let passed = || Ok::<_, anyhow::Error>(network.traffic(from_to[0], from_to[1])?.passed);
            let before = passed()?;
            sockets[n].0.send_to(names[n].as_bytes(), seen[1 - n])?;
            until("the router's frame", SOON, || Ok((passed()? > before).then_some(())))?;
        }
    }
    // Routers hand on in order: what would have come is there before the broker's last word.
    let mut heard = [String::new(), String::new()];
    for (n, heard) in heard.iter_mut().enumerate() {
        broker.send_to(b"nothing", seen[n])?;
        *heard = next(&sockets[n].0).context("the broker's last word")?;
    }
    Ok(heard)
}

#[test]
fn a_way_opens_between_two_routers_but_for_a_symmetric_one() -> Result<()> {
    assert_eq!(punched([Nat::EndpointIndependent, Nat::EndpointIndependent])?, ["eel", "dog"]);
    assert_eq!(punched([Nat::EndpointIndependent, Nat::Symmetric])?, ["nothing", "nothing"]);
    Ok(())
}
