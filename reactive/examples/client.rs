//! Asks the example `server` for a greeting and a sum, and shows what goes wrong where something does.

use std::time::Duration;

use tidegate_reactive::{ClientSettings, Destination, Headers, Json, Outcome, ReactiveClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::var("KAFKA_BROKERS").unwrap_or_else(|_| "localhost:9092".to_owned());
    let client = ReactiveClient::connect(ClientSettings::new(brokers, "greetings-replies")).await?;
    let timeout = Duration::from_secs(5);

    let hello: Destination = "kafka:greetings/hello".parse()?;
    let answer = client.request::<String>(&hello, "Jane", Headers::new(), timeout).await?;
    println!("{}", answer.payload);

    let sum: Destination = "kafka:greetings/numbers/sum".parse()?;
    let answer = client.request::<Json<i64>>(&sum, Json([1, 2, 39]), Headers::new(), timeout).await?;
    println!("1 + 2 + 39 = {}", answer.payload.0);

    let unknown: Destination = "kafka:greetings/goodbye".parse()?;
    for (destination, payload) in [(&sum, "one and two"), (&unknown, "Jane")] {
        let outcome: Outcome<String> = client.request(destination, payload, Headers::new(), timeout).await;
        println!("{destination}: {outcome:?}");
    }
    client.shutdown(timeout).await;
    Ok(())
}
