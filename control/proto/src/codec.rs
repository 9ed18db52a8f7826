//! Bodies on the wire: MessagePack with field names.
//!
//! Names instead of positions, so that a node of one version reads what a node of another wrote:
//! unknown fields are skipped, missing ones take their default.

use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// The bytes of `value`.
///
/// # Errors
/// When the value cannot be written, which only a broken `Serialize` does.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes)
        .with_struct_map()
        .with_human_readable();
    value.serialize(&mut serializer)?;
    Ok(bytes)
}

/// The value that `bytes` spell.
///
/// # Errors
/// When they spell none.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    T::deserialize(&mut deserializer)
}

/// The codec that the generated services use.
#[derive(Debug)]
pub struct MessagePack<T, U>(PhantomData<fn() -> (T, U)>);

impl<T, U> Default for MessagePack<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for MessagePack<T, U>
where
    T: Serialize + Send + 'static,
    U: DeserializeOwned + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessagePackEncoder<T>;
    type Decoder = MessagePackDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessagePackEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessagePackDecoder(PhantomData)
    }
}

/// The writing half of [`MessagePack`].
#[derive(Debug)]
pub struct MessagePackEncoder<T>(PhantomData<fn() -> T>);

impl<T: Serialize> Encoder for MessagePackEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes =
            encode(&item).map_err(|error| Status::internal(format!("cannot encode: {error}")))?;
        buffer.put_slice(&bytes);
        Ok(())
    }
}

/// The reading half of [`MessagePack`].
#[derive(Debug)]
pub struct MessagePackDecoder<U>(PhantomData<fn() -> U>);

impl<U: DeserializeOwned> Decoder for MessagePackDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        decode(&bytes)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("cannot decode: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use weft_types::{BackendId, Id, TaskId, Timestamp, netstate::*, network::IpamConfig, task::*};

    use super::*;

    #[test]
    fn objects_survive_the_wire() {
        let json = r#"{"ID":"0000000000000000000000001","Version":{"Index":7},
            "CreatedAt":"2026-11-21T00:00:00.000000001Z","UpdatedAt":"0001-01-01T00:00:00Z",
            "Spec":{"ContainerSpec":{"Image":"a","Unheard":{"of":[1,2.5,null]}},"ForceUpdate":0},
            "NetworksAttachments":[{"NetworkID":"0000000000000000000000002",
                "Addresses":["10.0.0.5/24","fd00::5/64"],"Backend":9}]}"#;
        let task: Task = serde_json::from_str(json).unwrap();
        assert_eq!(task.meta.created_at, Timestamp(1_795_219_200_000_000_001));
        let back: Task = decode(&encode(&task).unwrap()).unwrap();
        assert_eq!(back, task);
        assert!(serde_json::to_string(&back).unwrap().contains("Unheard"));
    }

    #[test]
    fn network_state_survives_the_wire() {
        let mut state = NetState {
            revision: 3,
            ..NetState::default()
        };
        state.nodes.insert(
            Id::numbered(1),
            NetNode {
                index: 1,
                hostname: "n1".into(),
                addr: "192.0.2.11".parse().unwrap(),
                addresses: ["2001:db8::11".parse().unwrap()].into(),
                alive: true,
                wireguard: None,
                zone: "a".into(),
            },
        );
        state.endpoints.insert(
            BackendId(4),
            NetEndpoint {
                task: TaskId::numbered(2),
                network: Id::numbered(3),
                node: Id::numbered(1),
                addresses: vec!["10.0.0.5/24".parse().unwrap()],
                service: None,
                name: "web.1".into(),
                names: vec![],
                phase: EndpointPhase::Serving,
                host_ports: vec![],
            },
        );
        let delta = NetState::default().delta_to(&state);
        let delta: NetDelta = decode(&encode(&delta).unwrap()).unwrap();
        let mut other = NetState::default();
        other.apply(delta).unwrap();
        assert_eq!(other, state);
    }

    #[test]
    fn an_ipam_config_survives_the_wire() {
        let config = IpamConfig {
            gateway: Some("fd00::1".parse().unwrap()),
            ..IpamConfig::default()
        };
        let back: IpamConfig = decode(&encode(&config).unwrap()).unwrap();
        assert_eq!(back, config);
    }
}
