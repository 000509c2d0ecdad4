//! A network card whose cable is a file: what the kernel sends is read from it, what is written to it the kernel
//! receives (a TAP device, `Documentation/networking/tuntap.rst` in the kernel).

use anyhow::{Context, Result, bail};
use nix::libc;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// The largest frame: Ethernet's header with a tag, and 1500 bytes.
pub(super) const FRAME_BYTES: usize = 18 + 1500;

/// Makes a card of that name in the network namespace of this thread. It goes when the file is closed. Reading and
/// writing never wait.
pub(super) fn open(name: &str) -> Result<File> {
    let mut card = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        // A frame alone, without a header of the kernel's before it.
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short },
    };
    if name.len() >= libc::IFNAMSIZ {
        bail!("{name} is too long for the name of a network card");
    }
    for (to, from) in card.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = file.context("cannot open /dev/net/tun: machines of a network are plugged in through it")?;
    // The one thing here that no safe call does: it names the card. The kernel reads one ifreq and writes one back.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut card) };
    nix::errno::Errno::result(outcome).with_context(|| format!("cannot make the network card {name}"))?;
    Ok(file)
}
