//! Addresses and ports as they lie in a packet.

/// An address of either family; IPv4 is held as `::ffff:a.b.c.d`.
///
/// The memory is sixteen bytes in network order, as four words, because that is what the verifier
/// and the compiler handle best.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Addr {
    words: [u32; 4],
}

/// The third word of a mapped IPv4 address: bytes `00 00 ff ff`.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Addr {
    /// `::`, which in [`crate::FrontKey`] means any address of this node.
    pub const ANY: Self = Self { words: [0; 4] };

    /// An IPv4 address from its four bytes as written.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self {
            words: [0, 0, MAPPED, u32::from_ne_bytes(octets)],
        }
    }

    /// An IPv6 (or mapped IPv4) address from its sixteen bytes as written.
    #[inline(always)]
    pub const fn v6(o: [u8; 16]) -> Self {
        Self {
            words: [
                u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    /// From words as the kernel keeps them (`user_ip6`, `src_ip6`): each in network order in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// From an IPv4 word as the kernel keeps it (`user_ip4`): network order in memory.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self {
            words: [0, 0, MAPPED, word],
        }
    }

    /// The four words, each in network order in memory.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// The IPv4 word, network order in memory; meaningless unless [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.words[3]
    }

    /// The four IPv4 bytes; meaningless unless [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        self.words[3].to_ne_bytes()
    }

    /// The sixteen bytes as written.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        let a = self.words[0].to_ne_bytes();
        let b = self.words[1].to_ne_bytes();
        let c = self.words[2].to_ne_bytes();
        let d = self.words[3].to_ne_bytes();
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Whether this is `::`, which stands for "none" in values.
    #[inline(always)]
    pub const fn is_any(&self) -> bool {
        self.words[0] | self.words[1] | self.words[2] | self.words[3] == 0
    }

    /// Equality word by word: `==` on the array compiles to a byte compare the verifier walks slowly.
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        ((self.words[0] ^ other.words[0])
            | (self.words[1] ^ other.words[1])
            | (self.words[2] ^ other.words[2])
            | (self.words[3] ^ other.words[3]))
            == 0
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            self.words[3].to_ne_bytes()[0] == 127
        } else {
            self.words[0] | self.words[1] | self.words[2] == 0
                && self.words[3] == u32::from_ne_bytes([0, 0, 0, 1])
        }
    }

    /// Multicast of either family, or the IPv4 broadcast address.
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        if self.is_v4() {
            let first = self.words[3].to_ne_bytes()[0];
            (first & 0xf0) == 0xe0 || self.words[3] == u32::MAX
        } else {
            self.words[0].to_ne_bytes()[0] == 0xff
        }
    }

    /// `198.18.0.0/15`: addresses of nodes inside the encrypted underlay. The range is set aside for
    /// measurements (RFC 2544), so that nobody routes it.
    #[inline(always)]
    pub const fn is_ciphered(&self) -> bool {
        let o = self.words[3].to_ne_bytes();
        self.is_v4() && o[0] == 198 && o[1] & 0xfe == 18
    }

    /// `169.254.0.0/16` or `fe80::/10`.
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        if self.is_v4() {
            let o = self.words[3].to_ne_bytes();
            o[0] == 169 && o[1] == 254
        } else {
            let o = self.words[0].to_ne_bytes();
            o[0] == 0xfe && o[1] & 0xc0 == 0x80
        }
    }
}

impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let v6 = core::net::Ipv6Addr::from(self.octets());
        match v6.to_ipv4_mapped() {
            Some(v4) => core::fmt::Display::fmt(&v4, f),
            None => core::fmt::Display::fmt(&v6, f),
        }
    }
}

impl From<core::net::Ipv4Addr> for Addr {
    fn from(ip: core::net::Ipv4Addr) -> Self {
        Self::v4(ip.octets())
    }
}

impl From<core::net::Ipv6Addr> for Addr {
    fn from(ip: core::net::Ipv6Addr) -> Self {
        Self::v6(ip.octets())
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(ip) => ip.into(),
            core::net::IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Addr> for core::net::IpAddr {
    /// The mapped form becomes IPv4.
    fn from(addr: Addr) -> Self {
        let v6 = core::net::Ipv6Addr::from(addr.octets());
        v6.to_ipv4_mapped().map_or(Self::V6(v6), Self::V4)
    }
}

/// A port (or ICMP id) whose memory is in network order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Be16(u16);

impl Be16 {
    /// From the number as people write it.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// From two bytes as they lie in a packet.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// Two bytes as they lie in a packet.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// The number as people write it.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The word as it lies in memory (checksum helpers want this).
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From a word as it lies in memory.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// Whether it is port 0, which in values means "as on the wire".
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl core::fmt::Debug for Be16 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.get(), f)
    }
}

const _: () = assert!(size_of::<Addr>() == 16 && align_of::<Addr>() == 4 && size_of::<Be16>() == 2);
