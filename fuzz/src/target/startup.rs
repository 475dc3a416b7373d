//! First packets: what is read of one and written again is the same.

use pgteal_wire::startup::{self, FirstPacket, encode_cancel};

pub fn run(bytes: &[u8]) {
    match startup::peek_len(bytes) {
        Ok(Some(len)) => assert!((8..=10_004).contains(&len), "{len}"),
        Ok(None) => assert!(bytes.len() < 4),
        Err(_) => {}
    }
    match startup::parse(bytes) {
        Ok(FirstPacket::Startup(message)) => {
            let written = message.encode();
            let Ok(FirstPacket::Startup(again)) = startup::parse(&written) else { panic!("not read again") };
            assert_eq!(again, message);
            assert_eq!(again.encode(), written);
            let _ = (
                message.user().map(<[u8]>::len),
                message.database().map(<[u8]>::len),
                message.is_replication(),
            );
            let _ = message.protocol_options().count();
        }
        // What follows a packet is not its own.
        Ok(FirstPacket::Cancel(key)) => assert!(bytes.starts_with(&encode_cancel(&key))),
        Ok(_) | Err(_) => {}
    }
}
