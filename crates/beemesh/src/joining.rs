//! `beemesh join`: a machine asks its ticket's contacts to let it in, and becomes a node.
//!
//! The keys are on disk before anybody is asked, and the answer is before the machine counts as a node: the same
//! command, run again after a crash anywhere, ends in the same.

use crate::cli::exit::{Coded, Exit};
use crate::config::Config;
use crate::driver::{Founding, clock};
use crate::join::{ADMIN, is_elsewhere};
use crate::mesh;
use crate::net::{self, Net};
use ::mesh::{JoinError, Mesh, Standing};
use anyhow::{Context, Result, anyhow, bail};
use base::Chance;
use identity::{Asked, Asking, GatewayNames, Identity, JoinAnswer, Joining, Revocations, Roles, Ticket};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often all contacts are asked before the operator hears that none answers.
const ROUNDS: u32 = 5;
/// The pause after the first round; it doubles.
const FIRST: Duration = Duration::from_millis(500);

/// What `beemesh join` was told besides what `beemesh up` is.
pub(crate) struct Wish {
    /// The ticket.
    pub(crate) ticket: Ticket,
    /// What this machine wants to do: all that the ticket grants, unless it is narrowed.
    pub(crate) roles: Roles,
}

/// Joins; the transport stays as it is, and shows the SVID from now on.
///
/// # Errors
/// Why this machine is no node of the mesh. What it has begun can be gone on with.
pub(crate) async fn join(
    config: &Config,
    wish: Wish,
    names: GatewayNames,
    net: Arc<Net>,
    chance: &mut Chance,
) -> Result<(Identity, Founding, Mesh)> {
    let joining = Identity::begin_join(&config.data, clock::wall())?;
    let transport =
        net::start(config, joining.node_key(), None, Revocations::none(), net, chance.stream("mesh")).await?;
    match enter(config, &wish, names, &joining, &transport, chance).await {
        Ok((identity, founding)) => Ok((identity, founding, transport)),
        Err(why) => {
            // Whoever was asked hears that nothing more comes.
            transport.close().await;
            Err(why)
        }
    }
}

async fn enter(
    config: &Config,
    wish: &Wish,
    names: GatewayNames,
    joining: &Joining,
    transport: &Mesh,
    chance: &mut Chance,
) -> Result<(Identity, Founding)> {
    let asking = asking(config, wish, names, transport);
    let invitation = wish.ticket.invitation();
    println!("Joining the mesh {} as {} with the roles {}", invitation.trust_domain, config.name, wish.roles);
    let (asked, answer) = ask(joining, transport, &wish.ticket, asking, chance).await?;
    // Believed before anything is written.
    answer.verifier(&wish.ticket, clock::wall())?;
    let founding = Founding { root: answer.root, registry: answer.registry };
    mesh::store(&config.data, &mesh::Known { founding, complete: true, joined: true }, &config.name)?;
    let identity = Identity::complete_join(joining, &asked, &answer, clock::wall())?;
    transport.expel(answer.revocations.clone());
    transport.set_identity(Standing::of(&identity)?)?;
    Ok((identity, founding))
}

fn asking(config: &Config, wish: &Wish, names: GatewayNames, transport: &Mesh) -> Asking {
    let person = |(name, group): (&str, &str)| (name.to_owned(), group.to_owned());
    Asking {
        name: config.name.clone(),
        roles: wish.roles,
        gateway: wish.roles.contains(Roles::GATEWAY).then_some(names),
        addresses: crate::join::addresses(transport, &config.advertise),
        admin: wish.roles.contains(Roles::AUTHORITY).then(|| person(ADMIN)),
    }
}

/// Asks each contact in turn, some rounds. Who refuses, refuses for all; who is not reached, or cannot say, leaves it to
/// the others.
async fn ask(
    joining: &Joining,
    transport: &Mesh,
    ticket: &Ticket,
    asking: Asking,
    chance: &mut Chance,
) -> Result<(Asked, JoinAnswer)> {
    let contacts = &ticket.invitation().contacts;
    let mut whys: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        whys.clear();
        for contact in contacts {
            // Asked anew each time: a request says when it was made.
            let asked = joining.ask(ticket, asking.clone(), clock::wall())?;
            let why = match transport.ask_to_join(contact, &asked.request().encode()).await {
                Ok(bytes) => {
                    let answer = JoinAnswer::decode(&bytes);
                    let answer = answer.with_context(|| format!("node {} answered", contact.node.short()))?;
                    return Ok((asked, answer));
                }
                Err(JoinError::Refused { said, .. }) if !is_elsewhere(&said) => {
                    let source = anyhow!("node {} refused: {said}", contact.node.short());
                    return Err(Coded { exit: Exit::Refused, source }.into());
                }
                Err(JoinError::Refused { said, .. }) => said,
                Err(JoinError::TooLarge { .. }) => {
                    bail!("the request is longer than any may be: give fewer names and addresses")
                }
                Err(JoinError::NoAnswer { why, .. }) => why,
            };
            tracing::info!(contact = %contact.node.short(), why, "no answer yet");
            whys.push(format!("node {} at {}: {why}", contact.node.short(), listed(&contact.addresses)));
        }
        if round + 1 < ROUNDS {
            let pause = FIRST * (1 << round);
            // Between a half and the whole of it: machines started together do not come back together.
            tokio::time::sleep(pause / 2 + pause.mul_f64((chance.u64() >> 11) as f64 / (1u64 << 54) as f64)).await;
        }
    }
    if contacts.is_empty() {
        bail!("the ticket names nobody to ask: make another with `beemesh invite`");
    }
    let source = anyhow!(
        "none of the ticket's contacts let this machine in ({}). Is the network between here and there open for UDP? Nothing is lost: run `beemesh join` again with the same ticket while it is good",
        whys.join("; ")
    );
    Err(Coded { exit: Exit::Unreachable, source }.into())
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
