//! What the inner Ethernet header says: which task a packet is for, and which leg of its way it is on.

/// A hardware address.
pub type Mac = [u8; 6];

/// The hardware address that `task_in` answers for every address, and that the host side of every
/// task's veth should carry. Never a task's: those have `00` as second byte.
pub const GATEWAY_MAC: Mac = [0x02, b'w', b'e', b'f', b't', 0x01];

/// The hardware address of the interface of backend `id`: `02:00` and the id, big end first.
///
/// The interface really has it, so delivery rewrites nothing. Id 0 means "the node itself".
#[inline(always)]
pub const fn task_mac(id: u32) -> Mac {
    let b = id.to_be_bytes();
    [0x02, 0x00, b[0], b[1], b[2], b[3]]
}

/// The backend id that a destination MAC names; none when it is not of [`task_mac`]'s form.
#[inline(always)]
pub const fn task_of_mac(mac: Mac) -> Option<u32> {
    if mac[0] != 0x02 || mac[1] != 0x00 {
        return None;
    }
    Some(u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]))
}

/// Which leg of its way a tunnelled packet is on; decides what `overlay_in` may do with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Leg {
    /// Task to task by address. The id is the sender's.
    Plain = 1,
    /// Client to published port, first hop. The id is the backend of the previous ring, or 0.
    Mesh = 2,
    /// Client to published port, re-tunnelled once. The id is the ingress *node*.
    MeshAgain = 3,
    /// Task to VIP, first hop. The id is the backend of the previous ring, or 0.
    Vip = 4,
    /// Task to VIP, re-tunnelled once. The id is the client's *node*.
    VipAgain = 5,
    /// A backend's answer, already un-translated. The id is the answering backend. A destination MAC
    /// with id 0 means that the receiving node must hand it to the client it serves. Its second byte is the
    /// [`crate::Load::code`] of that backend, 0 where nobody asks for it.
    Answer = 6,
    /// Between a node's own stack and a task, either way. A destination MAC with id 0 is the node.
    Host = 7,
}

impl Leg {
    /// The leg with this number, if there is one.
    #[inline(always)]
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Plain,
            2 => Self::Mesh,
            3 => Self::MeshAgain,
            4 => Self::Vip,
            5 => Self::VipAgain,
            6 => Self::Answer,
            7 => Self::Host,
            _ => return None,
        })
    }

    /// Splits an inner source MAC; none when it is not of [`wire_mac`]'s form.
    #[inline(always)]
    pub const fn of_mac(mac: Mac) -> Option<(Self, u32)> {
        if mac[0] & 3 != 0 {
            return None;
        }
        match Self::from_u8(mac[0] >> 2) {
            Some(leg) if mac[1] != 0 && !matches!(leg, Self::Answer) => None,
            Some(leg) => Some((leg, u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]))),
            None => None,
        }
    }
}

/// The inner source MAC of a tunnelled packet: the leg in the upper six bits of the first byte (the
/// multicast and local bits stay 0), a zero byte, the id. Differs from every device's own address.
#[inline(always)]
pub const fn wire_mac(leg: Leg, id: u32) -> Mac {
    let b = id.to_be_bytes();
    [(leg as u8) << 2, 0, b[0], b[1], b[2], b[3]]
}
