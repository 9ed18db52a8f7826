//! Many services at once. Needs root.

mod lan;

use anyhow::Result;
use lan::{CLIENT4, Lan, host4, ingress};
use weft_types::service::Protocol;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_services_are_applied_at_once_and_all_answer() -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.start_all().await?;
    for number in 0..200_u32 {
        let service = lan.add_service(
            u128::from(number) + 1,
            &[(Protocol::Tcp, 8000 + number as u16, 80)],
        );
        if number < 3 {
            let addr = format!("10.0.0.{}/24", 5 + number);
            lan.add_task(number + 1, Some(service), 2, &[(ingress(), &[&addr])])
                .await?;
        } else {
            let mut endpoint = lan.state.endpoints[&weft_types::BackendId(10)].clone();
            endpoint.service = Some(service);
            endpoint.task = weft_types::TaskId::numbered(u128::from(number) + 1);
            endpoint.addresses =
                vec![format!("10.0.{}.{}/16", 1 + number / 200, number % 200 + 20).parse()?];
            lan.state
                .endpoints
                .insert(weft_types::BackendId((number + 1) * 10), endpoint);
        }
    }
    lan.apply().await?;
    for number in 0..3 {
        lan.serve(&format!("t{}", number + 1), 80)?;
        let said = lan.ask_tcp("c", (host4(1), 8000 + number))?;
        assert_eq!(said, format!("t{} {CLIENT4}", number + 1));
    }
    Ok(())
}
