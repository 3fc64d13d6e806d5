//! Callers who mean harm: they get little, cost little, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use bytes::Bytes;
use chorale_proto::v1::ClassifyOptions;
use chorale_tests::{Client, MIB, Server, client::reason, fixtures, note, sound, until, verdict::assert_coherent};
use futures::{StreamExt, stream};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::{Code, Status, codegen::http::Request, transport::Endpoint};
use tonic_types::StatusExt;

const PATIENCE: Duration = Duration::from_secs(60);
/// Another address of this machine: another caller.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn limit(status: &Status) -> String {
    status.get_details_error_info().and_then(|mut info| info.metadata.remove("limit")).unwrap_or_default()
}

async fn client_from(address: IpAddr, server: &Server) -> Client {
    let endpoint = Endpoint::from_shared(server.endpoint().to_owned()).unwrap().local_address(Some(address));
    Client::new(endpoint.connect().await.unwrap())
}

async fn nothing_is_left(server: &Server) {
    for metric in ["chorale_gateway_open_streams", "chorale_feature_open_streams"] {
        until(&format!("{metric} is 0"), PATIENCE, async || (server.metric(metric) == Some(0.0)).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_drips_ends() {
    let settings = ["--set", "gateway.limits.idle_timeout=2s"];
    let server = Server::start("up", &settings).await;
    let mut upload = server.client().await.upload(ClassifyOptions::default()).await.unwrap();
    upload.accepted().await.unwrap();
    let clip = fixtures::clip();
    let mut bytes = (0..clip.len()).map(|at| clip.slice(at..=at));
    let refusal = timeout(PATIENCE, async {
        loop {
            tokio::select! {
                event = upload.event() => match event {
                    Err(status) => return status,
                    Ok(event) => panic!("{event:?}"),
                },
                () = sleep(Duration::from_millis(100)) => {}
            }
            // The server may just have ended the call.
            if upload.try_send(bytes.next().unwrap()).await.is_err() {
                return upload.event().await.unwrap_err();
            }
        }
    })
    .await
    .expect("a drip does not last");
    assert_eq!((reason(&refusal), limit(&refusal)), ("LIMIT_EXCEEDED".to_owned(), "min_upload_rate".to_owned()));
    nothing_is_left(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_of_one_caller_leave_room_for_others() {
    const STREAMS: usize = 10_000;
    const CONNECTIONS: usize = 40;
    let server = Server::start("up", &["--set", "feature.max_concurrent_streams=1024"]).await;
    let (other, before) = (server.client().await, server.memory().resident);
    let mut crowd = Vec::new();
    for _ in 0..CONNECTIONS {
        crowd.push(client_from(ELSEWHERE, &server).await);
    }
    let opened: Vec<_> = stream::iter(0..STREAMS)
        .map(|index| {
            let client = crowd[index % CONNECTIONS].clone();
            async move { client.upload(ClassifyOptions::default()).await }
        })
        .buffer_unordered(200)
        .collect()
        .await;
    let (open, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
    assert_eq!(open.len(), 512, "max_streams_per_caller");
    for refusal in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!((refusal.code(), limit(&refusal)), (Code::ResourceExhausted, "max_streams_per_caller".to_owned()));
        assert!(refusal.get_details_retry_info().is_some());
    }
    assert_coherent(&other.classify(fixtures::clip()).await.unwrap());
    let grown = server.memory().resident.saturating_sub(before);
    note(format_args!("512 open streams of {STREAMS} tried take {:.1} MiB", grown as f64 / MIB as f64));
    assert!(grown < (64 + 2 * 512) * MIB, "{grown} bytes");
    drop(open);
    nothing_is_left(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_as_soon_as_they_open_cost_the_connection() {
    const RESETS: usize = 50_000;
    let server = Server::start("up", &[]).await;
    let (mut requests, connection) =
        h2::client::handshake(TcpStream::connect(server.address()).await.unwrap()).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut resets = 0;
    for _ in 0..RESETS {
        let request = Request::post(format!("{}/chorale.v1.ClassifierService/ClassifyStream", server.endpoint()))
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let Ok(ready) = requests.clone().ready().await else { break };
        requests = ready;
        let Ok((_, mut stream)) = requests.send_request(request, false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        resets += 1;
    }
    drop(requests);
    let ended = timeout(PATIENCE, connection).await.expect("the server ends the connection").unwrap();
    note(format_args!("the connection ended after {resets} resets: {ended:?}"));
    assert!(ended.is_err() && resets < RESETS, "{ended:?}");
    assert_coherent(&server.client().await.classify(fixtures::clip()).await.unwrap());
    nothing_is_left(&server).await;
}

/// A gateway has one connection to a feature replica, on which many of its callers may leave in the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn calls_given_up_together_do_not_end_the_others_on_an_inner_connection() {
    const GIVEN_UP: usize = 90;
    let server = Server::start("inference", &[]).await;
    let (mut requests, connection) =
        h2::client::handshake(TcpStream::connect(server.address()).await.unwrap()).await.unwrap();
    let connection = tokio::spawn(connection);
    let call = || {
        let path = format!("{}/chorale.v1.InferenceService/Infer", server.endpoint());
        Request::post(path).header("content-type", "application/grpc").body(()).unwrap()
    };
    for _ in 0..10 {
        // All in one piece: nothing lets the connection's task run in between.
        let mut given_up: Vec<_> = (0..GIVEN_UP).map(|_| requests.send_request(call(), false).unwrap().1).collect();
        for stream in &mut given_up {
            stream.send_reset(h2::Reason::CANCEL);
        }
        drop(given_up);
        requests = requests.ready().await.unwrap();
        let (response, mut body) = requests.send_request(call(), false).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        body.send_reset(h2::Reason::CANCEL);
        requests = requests.ready().await.unwrap();
    }
    assert!(!connection.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let server = Server::start("up", &["--set", "gateway.connections.max=8"]).await;
    let client = server.client().await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(TcpStream::connect(server.address()).await.unwrap());
    }
    let mut closed = 0;
    for connection in &mut crowd {
        // An HTTP/2 server that serves a connection says so first.
        let mut first = [0; 1];
        closed += usize::from(timeout(PATIENCE, connection.read(&mut first)).await.unwrap().unwrap_or(0) == 0);
    }
    assert_eq!(closed, 13, "one of the eight is the client's");
    assert_eq!(server.metric("chorale_gateway_connections_refused_total"), Some(13.0));
    assert_coherent(&client.classify(fixtures::clip()).await.unwrap());
    drop(crowd);
    until("the places are free again", PATIENCE, async || {
        (server.metric("chorale_gateway_connections")? <= 1.0).then_some(())
    })
    .await;
    assert_coherent(&server.client().await.classify(fixtures::clip()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_ends_with_its_last_call() {
    let server = Server::start("up", &["--set", "gateway.connections.max_age=1s"]).await;
    let (_requests, connection) =
        h2::client::handshake(TcpStream::connect(server.address()).await.unwrap()).await.unwrap();
    let client = server.client().await;
    let track = sound::wav(&sound::chord(10.0, 1));
    let mut upload = client.upload(ClassifyOptions::default()).await.unwrap();
    upload.accepted().await.unwrap();
    upload.send(track.slice(..track.len() / 2)).await;
    timeout(PATIENCE, connection).await.expect("an idle connection ends").unwrap();
    sleep(Duration::from_secs(1)).await;
    upload.send(track.slice(track.len() / 2..)).await;
    assert_coherent(&upload.verdict().await.unwrap());
    let next = match client.classify(fixtures::clip()).await {
        // It was handed to the old connection just as that closed, and was not sent: callers connect again.
        Err(status) if status.code() == Code::Cancelled && status.details().is_empty() => {
            client.classify(fixtures::clip()).await
        }
        answer => answer,
    };
    assert_coherent(&next.unwrap());
}

/// A FLAC file of `seconds` of one value: 14 bytes for each 1.5 s.
fn flac_bomb(seconds: u32) -> Bytes {
    const RATE: u32 = 44_100;
    const BLOCK: u16 = u16::MAX;
    let crc = |bytes: &[u8], width: u32, polynomial: u32| {
        let top = 1 << (width - 1);
        let mask = u32::MAX >> (32 - width);
        bytes.iter().fold(0, |crc, &byte| {
            (0..8).fold(crc ^ (u32::from(byte) << (width - 8)), |crc, _| {
                if crc & top == 0 { crc << 1 & mask } else { (crc << 1 ^ polynomial) & mask }
            })
        })
    };
    let mut file = b"fLaC\x80\x00\x00\x22".to_vec();
    file.extend([BLOCK.to_be_bytes(), BLOCK.to_be_bytes()].concat());
    file.extend([0; 6]);
    // 20 bits of rate, 3 of channels - 1, 5 of bits - 1, 36 of samples, which are not told.
    file.extend((u64::from(RATE) << 44 | 15 << 36).to_be_bytes());
    file.extend([0; 16]);
    // Numbers are coded like characters of UTF-8, which has a gap after 22 h.
    for number in 0..seconds * RATE / u32::from(BLOCK) {
        // A block of 16-bit length, one channel, 16 bits a sample.
        let mut frame = vec![0xff, 0xf8, 0x70, 0x08];
        frame.extend(char::from_u32(number).unwrap().to_string().into_bytes());
        frame.extend((BLOCK - 1).to_be_bytes());
        frame.push(crc(&frame, 8, 0x07) as u8);
        // A constant subframe.
        frame.extend([0, 0x20, 0]);
        let footer = crc(&frame, 16, 0x8005) as u16;
        frame.extend(footer.to_be_bytes());
        file.extend(frame);
    }
    file.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_that_unpacks_to_hours_ends_at_a_limit() {
    let hours = flac_bomb(20 * 3_600);
    assert!(hours.len() < MIB as usize, "{} bytes", hours.len());
    for (setting, expected) in [
        ("feature.limits.max_duration=10m", "max_duration"),
        ("feature.limits.max_decode_time=100ms", "max_decode_time"),
    ] {
        let server = Server::start("up", &["--set", setting]).await;
        let client = server.client().await;
        assert_coherent(&client.classify(flac_bomb(30)).await.unwrap());
        let before = server.memory().resident;
        let refusal = client.classify(hours.clone()).await.unwrap_err();
        assert_eq!(
            (reason(&refusal), limit(&refusal)),
            ("LIMIT_EXCEEDED".to_owned(), expected.to_owned()),
            "{refusal}"
        );
        let grown = server.memory().resident.saturating_sub(before);
        assert!(grown < 32 * MIB, "{grown} bytes");
        nothing_is_left(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_much_does_not_keep_others_from_their_turn() {
    const MANY: usize = 50;
    let server = Server::start("up", &[]).await;
    let (greedy, modest) = (client_from(ELSEWHERE, &server).await, server.client().await);
    let anew = || ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
    let track = sound::wav(&sound::chord(300.0, 1));
    let mut many: Vec<_> = (0..MANY)
        .map(|_| {
            let (client, track) = (greedy.clone(), track.clone());
            tokio::spawn(async move { client.classify_with(track, anew()).await })
        })
        .collect();
    until("the greedy one's tracks wait", PATIENCE, async || {
        (server.metric("chorale_feature_open_streams")? >= 40.0).then_some(())
    })
    .await;
    assert_coherent(&modest.classify_with(fixtures::clip(), anew()).await.unwrap());
    many.retain(|track| !track.is_finished());
    note(format_args!("one track had its turn before {} of {MANY} that came first", many.len()));
    assert!(many.len() > MANY / 3, "{} of {MANY} are left", many.len());
    for track in many {
        track.abort();
    }
    nothing_is_left(&server).await;
}
