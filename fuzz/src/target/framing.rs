//! Framing: whole, in pieces and in runs it comes to the same messages, and the bodies of messages are read without harm.

use bytes::BytesMut;
use pgteal_wire::frame::{self, Frames};
use pgteal_wire::message::authentication::Authentication;
use pgteal_wire::message::backend::{ParameterStatus, parse_backend_key_data, parse_ready_for_query};
use pgteal_wire::message::frontend::{Frontend, parse_password, parse_sasl_initial};
use pgteal_wire::message::report::Fields;
use pgteal_wire::message::rows::{parse_command_complete, parse_data_row, parse_row_description};

const LIMIT: usize = 2_000;

pub fn run(bytes: &[u8]) {
    let mut frames = Frames::new(bytes, LIMIT);
    let mut whole = Vec::new();
    let mut failed = false;
    for frame in &mut frames {
        match frame {
            Ok(frame) => whole.push((frame.tag, frame.body().to_vec())),
            Err(_) => failed = true,
        }
    }
    let consumed = frames.consumed();
    assert!(consumed <= bytes.len());
    assert!(whole.iter().map(|(_, body)| frame::HEADER_LEN + body.len()).sum::<usize>() == consumed);
    // In pieces, as they come from a socket.
    let (mut inbox, mut pieces, mut broke) = (BytesMut::new(), Vec::new(), false);
    for piece in bytes.chunks(7) {
        inbox.extend_from_slice(piece);
        loop {
            match frame::take(&mut inbox, LIMIT) {
                Ok(Some(frame)) => pieces.push((frame.tag, frame.body().to_vec())),
                Ok(None) => break,
                Err(_) => {
                    broke = true;
                    break;
                }
            }
        }
        if broke {
            break;
        }
    }
    assert_eq!((&pieces, broke), (&whole, failed));
    let among = |tag: u8| tag % 2 == 0;
    let expected: usize =
        whole.iter().take_while(|(tag, _)| among(*tag)).map(|(_, body)| frame::HEADER_LEN + body.len()).sum();
    let run = frame::run(bytes, among);
    // A run knows no limit.
    assert!(run >= expected && run <= bytes.len());
    for (tag, body) in &whole {
        let _ = Frontend::parse(*tag, body);
        let _ = (Authentication::parse(body).is_ok(), ParameterStatus::parse(body).is_ok());
        let _ = (parse_backend_key_data(body).is_ok(), parse_ready_for_query(body).is_ok());
        let _ = (parse_password(body).is_ok(), parse_sasl_initial(body).is_ok());
        let _ = (parse_command_complete(body).is_ok(), parse_data_row(body).is_ok());
        let _ = parse_row_description(body).is_ok();
        if let Ok(fields) = Fields::parse(body) {
            let _ =
                (fields.sqlstate().len(), fields.message().len(), fields.is_fatal(), fields.iter().count());
        }
    }
}
