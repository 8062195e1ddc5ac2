//! The wire between a worker and its database: a network namespace's only link where we may make one (root on
//! Linux), else a proxy. Cut, packets of the first vanish and nobody is told; connections of the second end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use segno_e2e::proxy::Proxy;
use tokio::process::Command;

use crate::server::is_root;

pub enum Wire {
    Link {
        name: String,
        host: Ipv4Addr,
    },
    Proxy(Proxy),
    /// A file needs no network.
    None,
}

/// Networks for so many workers, or none where they cannot be made. Their addresses differ from test to test.
pub async fn links(count: u8) -> anyhow::Result<Vec<Wire>> {
    let mut links = Vec::new();
    let (a, b): (u8, u8) = (rand::random_range(64..250), rand::random());
    for number in 0..count {
        if !is_root() {
            break;
        }
        let (host, inside) = (number * 4 + 1, number * 4 + 2);
        let name = format!("sg{a:02x}{b:02x}{number}");
        let script = format!(
            "ip netns add {name} && ip link add {name} type veth peer name {name}i && \
             ip link set {name}i netns {name} && ip addr add 10.{a}.{b}.{host}/30 dev {name} && \
             ip link set {name} up && ip -n {name} addr add 10.{a}.{b}.{inside}/30 dev {name}i && \
             ip -n {name} link set {name}i up && ip -n {name} link set lo up"
        );
        let link = Wire::Link {
            name,
            host: Ipv4Addr::new(10, a, b, host),
        };
        if !shell(&script).await? {
            break;
        }
        links.push(link);
    }
    Ok(links)
}

impl Wire {
    pub async fn proxy(to: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self::Proxy(Proxy::start(to).await?))
    }

    /// The host's end.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Link { host, .. } => Some((*host).into()),
            Self::Proxy(_) | Self::None => None,
        }
    }

    /// A command on the other end of it.
    pub fn command(&self, program: &str) -> Command {
        match self {
            Self::Link { name, .. } => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, program]);
                command
            }
            Self::Proxy(_) | Self::None => Command::new(program),
        }
    }

    pub async fn cut(&self) -> anyhow::Result<()> {
        self.set("down").await
    }

    pub async fn mend(&self) -> anyhow::Result<()> {
        self.set("up").await
    }

    async fn set(&self, state: &str) -> anyhow::Result<()> {
        match self {
            Self::Link { name, .. } => {
                // Inside: the host's end keeps its address, and Postgres the sockets that listen on it.
                let done = shell(&format!("ip -n {name} link set {name}i {state}")).await?;
                anyhow::ensure!(done, "the link {name} cannot be set {state}");
            }
            Self::Proxy(proxy) if state == "down" => proxy.cut(),
            Self::Proxy(proxy) => proxy.mend(),
            Self::None => {}
        }
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Self::Link { name, .. } = self {
            // Its end of the link goes with it, and with that the other one.
            let _ = std::process::Command::new("ip")
                .args(["netns", "del", name])
                .status();
        }
    }
}

async fn shell(script: &str) -> anyhow::Result<bool> {
    Ok(Command::new("sh")
        .args(["-c", script])
        .status()
        .await?
        .success())
}
