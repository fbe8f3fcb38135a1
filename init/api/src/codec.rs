//! The wire form: a frame is a little-endian u32 length and that many bytes: a tag byte, then the fields in order.
//! Numbers are little-endian, text is a u32 length and UTF-8, a list is a u32 count and its items.

use crate::{Reply, Request, Service, Stage, State, Target};

/// No frame is longer. The largest real one, a boot report, is a few kilobytes.
pub const MAX_FRAME: usize = 256 * 1024;

/// The other side does not speak this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message on the init socket: {0}")]
pub struct Malformed(&'static str);

/// The bytes of a request.
pub fn encode_request(request: &Request) -> Vec<u8> {
    let mut w = Writer::new();
    match request {
        Request::SetTarget(target) => {
            w.u8(1);
            w.u8(*target as u8);
        }
        Request::ServiceList => w.u8(2),
        Request::ServiceStart(name) => w.tagged(3, name),
        Request::ServiceStop(name) => w.tagged(4, name),
        Request::ServiceRestart(name) => w.tagged(5, name),
        Request::Reboot => w.u8(6),
        Request::Shutdown => w.u8(7),
        Request::BootReport => w.u8(8),
    }
    w.frame()
}

/// The first request in `bytes` and how long its frame was; `None` when the frame is not complete yet.
pub fn decode_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, Malformed> {
    let Some((mut r, length)) = Reader::frame(bytes)? else { return Ok(None) };
    let request = match r.u8()? {
        1 => Request::SetTarget(match r.u8()? {
            0 => Target::Maintenance,
            1 => Target::Worker,
            2 => Target::ControlPlane,
            _ => return Err(Malformed("unknown target")),
        }),
        2 => Request::ServiceList,
        3 => Request::ServiceStart(r.text()?),
        4 => Request::ServiceStop(r.text()?),
        5 => Request::ServiceRestart(r.text()?),
        6 => Request::Reboot,
        7 => Request::Shutdown,
        8 => Request::BootReport,
        _ => return Err(Malformed("unknown request")),
    };
    r.end()?;
    Ok(Some((request, length)))
}

/// The bytes of a reply.
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    let mut w = Writer::new();
    match reply {
        Reply::Done => w.u8(1),
        Reply::Refused(why) => w.tagged(2, why),
        Reply::Services(services) => {
            w.u8(3);
            w.count(services.len());
            services.iter().for_each(|s| w.service(s));
        }
        Reply::Boot(stages) => {
            w.u8(4);
            w.count(stages.len());
            for stage in stages {
                w.text(&stage.name);
                w.u64(stage.done_ms);
                w.text(&stage.detail);
                w.u8(u8::from(stage.ok));
            }
        }
    }
    w.frame()
}

/// The first reply in `bytes` and how long its frame was; `None` when the frame is not complete yet.
pub fn decode_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let Some((mut r, length)) = Reader::frame(bytes)? else { return Ok(None) };
    let reply = match r.u8()? {
        1 => Reply::Done,
        2 => Reply::Refused(r.text()?),
        3 => Reply::Services(r.list(Reader::service)?),
        4 => Reply::Boot(
            r.list(|r| Ok(Stage { name: r.text()?, done_ms: r.u64()?, detail: r.text()?, ok: r.u8()? != 0 }))?,
        ),
        _ => return Err(Malformed("unknown reply")),
    };
    r.end()?;
    Ok(Some((reply, length)))
}

struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Writer {
        Writer(vec![0; 4])
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn count(&mut self, value: usize) {
        self.0.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn tagged(&mut self, tag: u8, text: &str) {
        self.u8(tag);
        self.text(text);
    }

    fn service(&mut self, service: &Service) {
        self.text(&service.name);
        match &service.state {
            State::Waiting => self.u8(0),
            State::Starting => self.u8(1),
            State::Running { pid, since_ms } => {
                self.u8(2);
                self.u64(u64::from(*pid));
                self.u64(*since_ms);
            }
            State::Stopping { pid } => {
                self.u8(3);
                self.u64(u64::from(*pid));
            }
            State::Backoff { until_ms } => {
                self.u8(4);
                self.u64(*until_ms);
            }
            State::Stopped => self.u8(5),
            State::Failed(why) => self.tagged(6, why),
        }
        self.u64(u64::from(service.restarts));
        self.text(&service.last_exit);
    }

    fn frame(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn frame(bytes: &'a [u8]) -> Result<Option<(Reader<'a>, usize)>, Malformed> {
        let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(Malformed("frame too long"));
        }
        Ok(rest.get(..length).map(|body| (Reader(body), length + 4)))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Malformed("cut short"))?;
        self.0 = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?.first_chunk::<8>().ok_or(Malformed("cut short"))?;
        Ok(u64::from_le_bytes(*bytes))
    }

    fn narrow(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.u64()?).map_err(|_| Malformed("number too large"))
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        let bytes = self.take(4)?.first_chunk::<4>().ok_or(Malformed("cut short"))?;
        Ok(u32::from_le_bytes(*bytes) as usize)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.count()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("text is not UTF-8"))
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let count = self.count()?;
        // Not `with_capacity(count)`: the count is the sender's word, the bytes behind it are the proof.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn service(&mut self) -> Result<Service, Malformed> {
        let name = self.text()?;
        let state = match self.u8()? {
            0 => State::Waiting,
            1 => State::Starting,
            2 => State::Running { pid: self.narrow()?, since_ms: self.u64()? },
            3 => State::Stopping { pid: self.narrow()? },
            4 => State::Backoff { until_ms: self.u64()? },
            5 => State::Stopped,
            6 => State::Failed(self.text()?),
            _ => return Err(Malformed("unknown service state")),
        };
        Ok(Service { name, state, restarts: self.narrow()?, last_exit: self.text()? })
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip() {
        let requests = [
            Request::SetTarget(Target::ControlPlane),
            Request::ServiceList,
            Request::ServiceStart("kubelet".into()),
            Request::ServiceStop(String::new()),
            Request::ServiceRestart("käse".into()),
            Request::Reboot,
            Request::Shutdown,
            Request::BootReport,
        ];
        for request in requests {
            let mut bytes = encode_request(&request);
            let length = bytes.len();
            for cut in 0..length {
                assert_eq!(decode_request(&bytes[..cut]), Ok(None));
            }
            bytes.extend_from_slice(b"next");
            assert_eq!(decode_request(&bytes), Ok(Some((request, length))));
        }
    }

    #[test]
    fn replies_round_trip() {
        let service = |state| Service { name: "store".into(), state, restarts: 3, last_exit: "SIGKILL".into() };
        let replies = [
            Reply::Done,
            Reply::Refused("no such service".into()),
            Reply::Services(vec![
                service(State::Running { pid: 17, since_ms: 1 << 40 }),
                service(State::Failed("gone".into())),
                service(State::Backoff { until_ms: 9 }),
                service(State::Stopping { pid: 17 }),
            ]),
            Reply::Boot(vec![Stage { name: "modules".into(), done_ms: 812, detail: "14".into(), ok: true }]),
        ];
        for reply in replies {
            let bytes = encode_reply(&reply);
            assert_eq!(decode_reply(&bytes), Ok(Some((reply, bytes.len()))));
        }
    }

    #[test]
    fn nonsense_is_refused_and_never_allocates_much() {
        for bytes in [
            &[1, 0, 0, 0, 99][..],                // unknown tag
            &[2, 0, 0, 0, 1, 7],                  // unknown target
            &[2, 0, 0, 0, 2, 0],                  // trailing byte
            &[5, 0, 0, 0, 3, 255, 255, 255, 255], // text longer than its frame
            &[6, 0, 0, 0, 3, 1, 0, 0, 0, 0xff],   // not UTF-8
            &[255, 255, 255, 255],                // frame too long
            &[0, 0, 0, 0],                        // empty
        ] {
            assert!(decode_request(bytes).is_err(), "{bytes:?}");
        }
        assert!(decode_reply(&[5, 0, 0, 0, 3, 255, 255, 255, 255]).is_err());
    }
}
