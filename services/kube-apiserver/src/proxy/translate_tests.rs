use super::*;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

const SHELL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };

fn data(stream: u32, fin: bool, text: &'static str) -> Frame {
    Frame::Data { stream, fin, data: Bytes::from_static(text.as_bytes()) }
}

#[test]
fn streams_are_those_that_were_asked_for() {
    let kinds = |wanted| Channels::new(wanted).all.iter().map(|c| (c.stream, c.kind)).collect::<Vec<_>>();
    assert_eq!(kinds(SHELL), [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")]);
    let terminal = Wanted { tty: true, ..SHELL };
    assert_eq!(kinds(terminal), [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")]);
    assert_eq!(kinds(Wanted::default()), [(1, "error")]);
}

#[test]
fn messages_become_frames() {
    let terminal = Channels::new(Wanted { tty: true, ..SHELL });
    let table: [(&[u8], Option<Bytes>); 8] = [
        (b"\x00abc", Some(Encoder::data(3, b"abc", false))),
        (b"\x04{\"Width\":80}", Some(Encoder::data(7, b"{\"Width\":80}", false))),
        (b"\xff\x00", Some(Encoder::data(3, b"", true))),
        (b"\xff\x01", None),
        (b"\x00", None),
        (b"", None),
        (b"\x01output is not the client's", None),
        (b"\x09unknown", None),
    ];
    for (message, want) in table {
        assert_eq!(terminal.client_says(message), want, "{message:?}");
    }
    let blind = Channels::new(Wanted { stdout: true, ..Wanted::default() });
    assert_eq!(blind.client_says(b"\x00abc"), None, "no input was asked for");
}

#[test]
fn frames_become_messages_until_result_and_output_have_ended() {
    let mut channels = Channels::new(SHELL);
    for stream in [1, 3, 5, 7] {
        assert!(!channels.all_accepted());
        channels.kubelet_says(Frame::Accept { stream, headers: Vec::new() });
    }
    assert!(channels.all_accepted());
    assert_eq!(channels.kubelet_says(data(5, false, "out")), Reply::ToClient(Bytes::from_static(b"\x01out")));
    assert_eq!(channels.kubelet_says(data(7, true, "")), Reply::Nothing);
    assert_eq!(channels.kubelet_says(Frame::Ping(2)), Reply::ToKubelet(Encoder::ping(2)));
    assert_eq!(channels.kubelet_says(data(9, false, "nobody's")), Reply::Nothing);
    assert!(!channels.concluded);
    channels.kubelet_says(data(1, true, "{}"));
    assert!(channels.concluded && !channels.complete());
    channels.kubelet_says(Frame::Reset { stream: 5, status: 5 });
    assert!(channels.complete());
}

/// Both ends of a translation: a client's socket and the kubelet's side of the SPDY connection.
async fn pair(wanted: Wanted) -> (WebSocketStream<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (kubelet_near, kubelet_far) = tokio::io::duplex(1 << 16);
    let server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
    tokio::spawn(run(server, kubelet_near, wanted));
    (WebSocketStream::from_raw_socket(far, Role::Client, None).await, kubelet_far)
}

async fn next(kubelet: &mut tokio::io::DuplexStream, decoder: &mut Decoder) -> Frame {
    loop {
        if let Some(frame) = decoder.next_frame().expect("SPDY") {
            return frame;
        }
        assert!(kubelet.read_buf(&mut decoder.input).await.expect("read") > 0, "the connection ended");
    }
}

#[tokio::test]
async fn a_command_runs_with_its_input_closed_and_its_exit_code_told() {
    let (mut client, mut kubelet) = pair(SHELL).await;
    let (mut decoder, mut encoder) = (Decoder::default(), Encoder::default());
    client.send(Message::Binary(Bytes::from_static(b"\x00early"))).await.expect("send");
    for want in [1, 3, 5, 7] {
        let Frame::Open { stream, headers } = next(&mut kubelet, &mut decoder).await else { panic!("no stream") };
        assert_eq!((stream, headers[0].0.as_str()), (want, "streamtype"));
    }
    for stream in [1, 3, 5, 7] {
        kubelet.write_all(&encoder.accept(stream)).await.expect("write");
    }
    assert_eq!(next(&mut kubelet, &mut decoder).await, data(3, false, "early"), "kept until the stream was accepted");
    client.send(Message::Binary(Bytes::from_static(b"\xff\x00"))).await.expect("send");
    assert_eq!(next(&mut kubelet, &mut decoder).await, data(3, true, ""));
    for bytes in [Encoder::data(5, b"hello", true), Encoder::data(7, b"", true), Encoder::data(1, b"{}", true)] {
        kubelet.write_all(&bytes).await.expect("write");
    }
    let mut told = Vec::new();
    while let Some(Ok(message)) = client.next().await {
        told.push(message);
    }
    let binary = |b: &'static [u8]| Message::Binary(Bytes::from_static(b));
    assert_eq!(told, [binary(b"\x01hello"), binary(b"\x03{}"), websocket::goodbye()]);
}

#[tokio::test]
async fn a_lost_kubelet_is_an_error_and_not_a_success() {
    let (mut client, kubelet) = pair(SHELL).await;
    drop(kubelet);
    let Some(Ok(Message::Binary(told))) = client.next().await else { panic!("nothing was told") };
    assert_eq!(told[0], channel::ERROR);
    assert!(String::from_utf8_lossy(&told).contains("InternalError"));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_kubelets_connection() {
    let (client, mut kubelet) = pair(SHELL).await;
    let (mut decoder, mut encoder) = (Decoder::default(), Encoder::default());
    for stream in [1, 3, 5, 7] {
        next(&mut kubelet, &mut decoder).await;
        kubelet.write_all(&encoder.accept(stream)).await.expect("write");
    }
    drop(client);
    let mut rest = Vec::new();
    kubelet.read_to_end(&mut rest).await.expect("the connection ends");
}
