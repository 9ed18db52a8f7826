//! What a request asks, in the form that [`crate::resolve::resolve`] takes.

use std::net::IpAddr;

use hickory_proto::{
    op::{LowerQuery, OpCode, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use hickory_server::zone_handler::MessageRequest;

use crate::resolve::{Question, Wanted};

/// Longest name in flattened form.
const NAME_BYTES: usize = 255;

/// The one question of a request.
#[derive(Debug)]
pub struct Asked<'r> {
    query: &'r LowerQuery,
    name: [u8; NAME_BYTES],
    name_len: usize,
    wanted: Wanted,
}

impl<'r> Asked<'r> {
    /// Reads the question of `request`.
    ///
    /// # Errors
    /// The code to answer with when it is not a request for exactly one name.
    pub fn of(request: &'r MessageRequest) -> Result<Self, ResponseCode> {
        if request.metadata.op_code != OpCode::Query {
            return Err(ResponseCode::NotImp);
        }
        let [query] = request.queries.queries() else {
            return Err(ResponseCode::FormErr);
        };
        if request.version() > 0 {
            return Err(ResponseCode::BADVERS);
        }
        let spelled = query.original().name();
        let mut name = [0; NAME_BYTES];
        let name_len = flatten(spelled, &mut name);
        let wanted = match (query.query_class(), query.query_type()) {
            (DNSClass::IN | DNSClass::ANY, RecordType::A) => Wanted::V4,
            (DNSClass::IN | DNSClass::ANY, RecordType::AAAA) => Wanted::V6,
            (DNSClass::IN | DNSClass::ANY, RecordType::ANY) => Wanted::Any,
            (DNSClass::IN | DNSClass::ANY, RecordType::PTR) => {
                reversed(spelled).map_or(Wanted::Other, Wanted::Pointer)
            }
            _ => Wanted::Other,
        };
        Ok(Self {
            query,
            name,
            name_len,
            wanted,
        })
    }

    /// The question, for the rules.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        Question {
            name: &self.name[..self.name_len],
            wanted: self.wanted,
        }
    }

    /// The name as it was spelled.
    #[must_use]
    pub fn name(&self) -> &'r Name {
        self.query.original().name()
    }
}

/// Writes `name` in lower case, labels joined by dots, and says how long it is.
///
/// A dot inside a label is written as a byte that no name of ours has, so that `a\.b` is not `a.b`.
fn flatten(name: &Name, flat: &mut [u8; NAME_BYTES]) -> usize {
    let mut len = 0;
    for label in name.iter() {
        if len > 0 {
            flat[len] = b'.';
            len += 1;
        }
        for byte in label {
            flat[len] = if *byte == b'.' {
                0
            } else {
                byte.to_ascii_lowercase()
            };
            len += 1;
        }
    }
    len
}

fn reversed(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}
