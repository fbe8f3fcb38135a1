//! How messages become bytes: protobuf, with buffers as large as the messages are.
//!
//! tonic's own codec begins with 8 KiB for every message, in each direction. Most of the store's are a few hundred bytes, keys
//! and values are slices of the buffer that they came in, and glibc's quick lists end at 1 KiB.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Where a buffer begins, in bytes: room for a Kubernetes key and a small object, frame included.
const FIRST: usize = 1000;
/// Streamed messages are handed to the connection at this size at the latest.
const YIELD: usize = 32 << 10;

fn settings() -> BufferSettings {
    BufferSettings::new(FIRST, YIELD)
}

/// A codec for one method: encodes `T`, decodes `U`.
#[derive(Clone, Debug)]
pub struct Fitting<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Fitting<T, U> {
    fn default() -> Self {
        Fitting(PhantomData)
    }
}

impl<T, U> Codec for Fitting<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Fitting<T, U>;
    type Decoder = Fitting<T, U>;

    fn encoder(&mut self) -> Self::Encoder {
        Fitting(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Fitting(PhantomData)
    }
}

impl<T: Message, U> Encoder for Fitting<T, U> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer).map_err(|e| Status::internal(e.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

impl<T, U: Message + Default> Decoder for Fitting<T, U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buffer).map(Some).map_err(|e| Status::internal(e.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}
