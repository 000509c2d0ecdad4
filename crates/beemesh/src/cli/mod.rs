//! What a person types. [`Args`] is the text; what the program needs is made of it in [`crate::config`].

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

pub(crate) mod ask;
pub(crate) mod cells;
pub(crate) mod columns;
pub(crate) mod doctor;
pub(crate) mod exit;
pub(crate) mod expel;
pub(crate) mod invite;
pub(crate) mod leave;
pub(crate) mod nodes;
pub(crate) mod show;

/// Global mesh computing: one small program on every machine, no machine special.
#[derive(Parser, Debug)]
#[command(name = "beemesh", version, disable_help_subcommand = true, after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a node in the foreground: found a mesh of one, or resume what is in the data directory
    Up(Box<Up>),
    /// Print a ticket with which another machine joins the mesh of this machine's node
    Invite(Invite),
    /// Join a mesh with a ticket of `beemesh invite`, and run a node of it in the foreground
    Join(Box<Join>),
    /// Show how this machine's node is
    Status(Show),
    /// Show every node of the mesh, and how this machine's node knows it
    Nodes(Show),
    /// Show the cells this machine's node keeps, who keeps them with it, and how far each is
    Cells(Show),
    /// Expel a node from the mesh: its links are closed and it is refused from then on
    Expel(Expel),
    /// Take this machine's node out of its mesh: its pods and cells go elsewhere, and it stops
    Leave(Leave),
    /// Check whether this machine is as a node needs it, with or without one running
    Doctor(Doctor),
    /// Print the man page
    #[command(hide = true)]
    Man,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Flags of `beemesh up`.
#[derive(ClapArgs, Debug)]
pub(crate) struct Up {
    /// Where everything is kept [default: /var/lib/beemesh, or ~/.local/share/beemesh without root]
    #[arg(long, value_name = "DIR", env = "BEEMESH_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Address and UDP port other nodes reach this one at
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7443")]
    pub(crate) listen: SocketAddr,
    /// An address others reach this node's --listen at, where the machine does not see it itself; may be given often
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) advertise: Vec<SocketAddr>,
    /// Address and port of the Kubernetes API
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub(crate) api: SocketAddr,
    /// The node's name, as `kubectl get nodes` shows it [default: the host name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The failure domain this machine is in: label topology.kubernetes.io/zone
    #[arg(long, value_name = "Z")]
    pub(crate) zone: Option<String>,
    /// A label of the node; may be given often
    #[arg(long = "label", value_name = "K=V")]
    pub(crate) labels: Vec<String>,
    /// Write the administrator's kubeconfig here as well, and leave ~/.kube/config alone
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Use the container runtime at this CRI socket instead of a containerd of our own
    #[arg(long, value_name = "SOCKET", conflicts_with = "runtime")]
    pub(crate) cri: Option<PathBuf>,
    /// Who runs pods: a containerd of our own (as root), or nobody
    #[arg(long, value_enum, default_value_t = Runtime::Containerd)]
    pub(crate) runtime: Runtime,
    /// Pull images of a registry from elsewhere instead, http:// included: docker.io=http://10.0.0.1:5000; may be given often
    #[arg(long = "registry-mirror", value_name = "HOST=URL", conflicts_with = "cri")]
    pub(crate) mirrors: Vec<String>,
    /// The mesh's trust domain, when founding [default: drawn]
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) trust_domain: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Runtime {
    /// A containerd of our own, supervised by beemesh; its containers outlive it
    Containerd,
    /// Nobody: the node keeps cells and serves the API; works without root
    None,
}

/// Flags of `beemesh join`: those of `beemesh up`, and two.
#[derive(ClapArgs, Debug)]
pub(crate) struct Join {
    /// The line that `beemesh invite` printed
    pub(crate) ticket: String,
    /// What this machine is to do, of what the ticket grants: some of authority,keeper,gateway,worker [default: all of it]
    #[arg(long, value_name = "ROLES")]
    pub(crate) roles: Option<String>,
    #[command(flatten)]
    pub(crate) up: Up,
}

/// Flags of `beemesh invite`.
#[derive(ClapArgs, Debug)]
pub(crate) struct Invite {
    /// The data directory the node was started with
    #[arg(long, value_name = "DIR", env = "BEEMESH_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// How long the ticket is good: a number and s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = invite::ttl)]
    pub(crate) ttl: std::time::Duration,
    /// Let many machines join with it, not one
    #[arg(long)]
    pub(crate) reusable: bool,
    /// What a machine that joins with it may do at most
    #[arg(long, value_name = "ROLES", default_value = "authority,keeper,gateway,worker")]
    pub(crate) roles: String,
}

/// Flags of `beemesh expel`.
#[derive(ClapArgs, Debug)]
pub(crate) struct Expel {
    /// Its name, or the beginning of its id, as `beemesh nodes` shows them
    pub(crate) node: String,
    /// Also if the certificates of others, which it has issued, are refused with it
    #[arg(long)]
    pub(crate) force: bool,
    /// The data directory the node of this machine was started with
    #[arg(long, value_name = "DIR", env = "BEEMESH_DATA")]
    pub(crate) data: Option<PathBuf>,
}

/// Flags of `beemesh leave`.
#[derive(ClapArgs, Debug)]
pub(crate) struct Leave {
    /// Leave also if pods or cells are lost by it, or the mesh ends
    #[arg(long, conflicts_with = "cancel")]
    pub(crate) force: bool,
    /// Stay after all: the node takes pods and cells again
    #[arg(long)]
    pub(crate) cancel: bool,
    /// Give up after that long: a number and s, m, h or d; what was done stays [default: never]
    #[arg(long, value_name = "TIME", value_parser = invite::ttl)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// The data directory the node was started with
    #[arg(long, value_name = "DIR", env = "BEEMESH_DATA")]
    pub(crate) data: Option<PathBuf>,
}

/// Flags of `beemesh doctor`.
#[derive(ClapArgs, Debug)]
pub(crate) struct Doctor {
    /// The data directory the node was started with, or will be
    #[arg(long, value_name = "DIR", env = "BEEMESH_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Address and port of the Kubernetes API, if no node runs
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub(crate) api: SocketAddr,
    /// Address and UDP port of the mesh, if no node runs
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7443")]
    pub(crate) listen: SocketAddr,
    /// json prints a list of checks; the default is for people
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Flags of the commands that show something of a running node.
#[derive(ClapArgs, Debug)]
pub(crate) struct Show {
    /// The data directory the node was started with
    #[arg(long, value_name = "DIR", env = "BEEMESH_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// json prints everything there is; the default is for people
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
