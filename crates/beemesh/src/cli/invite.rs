//! `beemesh invite`: the ticket on standard output, everything else beside it.

use super::Invite;
use super::ask::ask;
use crate::admin::{Answer, Question};
use crate::config::data_dir;
use crate::invite::{Asked, TTL_MAX};
use anyhow::{Context, Result, bail};
use identity::Roles;
use std::time::Duration;

/// Has the running node make a ticket, and prints it.
///
/// # Errors
/// No node runs there, or it says why it made none.
pub(crate) fn run(invite: &Invite) -> Result<()> {
    let roles: Roles = invite.roles.parse().context("--roles")?;
    let asked = Asked { ttl_seconds: invite.ttl.as_secs(), reusable: invite.reusable, roles: roles.to_string() };
    match ask(&data_dir(invite.data.as_deref())?, &Question::Invite(asked))? {
        Answer::Invited(made) => {
            println!("{}", made.ticket);
            let many = if invite.reusable { "many machines" } else { "one machine" };
            eprintln!(
                "Good for {many} until {}, with the roles {}, in the mesh {}.",
                made.expires, made.roles, made.trust_domain
            );
            eprintln!(
                "On the other machine: beemesh join TICKET. Whoever has the ticket may join: keep it to yourself."
            );
            Ok(())
        }
        other => bail!("the node answered otherwise than was asked: {other:?}"),
    }
}

/// A time as it is typed: `90s`, `30m`, `1h`, `2d`.
///
/// # Errors
/// What was expected.
pub(crate) fn ttl(typed: &str) -> Result<Duration, String> {
    let expected =
        || format!("expected a number and s, m, h or d, such as 30m, from 1s to {}d", TTL_MAX.as_secs() / 86400);
    let digits = typed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match typed.get(digits.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86400,
        _ => return Err(expected()),
    };
    let number: u64 = digits.parse().map_err(|_| expected())?;
    let ttl = number.checked_mul(seconds).map(Duration::from_secs);
    ttl.filter(|t| !t.is_zero() && *t <= TTL_MAX).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit_within_bounds() {
        for (typed, seconds) in [("1s", 1), ("90s", 90), ("30m", 1800), ("1h", 3600), ("30d", 30 * 86400)] {
            assert_eq!(ttl(typed), Ok(Duration::from_secs(seconds)), "{typed}");
        }
        for bad in
            ["", "1", "h", "0s", "31d", "-1h", "1.5h", "1w", "1hh", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }
}
