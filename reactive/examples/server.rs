//! A service that greets, and adds numbers. Run beside the example `client`.
//!
//! ```text
//! export $(cargo xtask kafka)
//! cargo run -p tidegate-reactive --example server
//! ```

use tidegate_reactive::{Json, ReactiveServer, Refusal, Request, ServerSettings, Service};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::var("KAFKA_BROKERS").unwrap_or_else(|_| "localhost:9092".to_owned());
    let service = Service::sync("hello", |request: Request<String>| format!("Hello, {}!", request.payload))
        | Service::future("numbers/sum", |request: Request<Json<Vec<i64>>>| async move {
            let sum = request.payload.0.iter().try_fold(0_i64, |sum, number| sum.checked_add(*number));
            sum.map(Json).ok_or_else(|| Refusal::bad_request("the sum does not fit 64 bits"))
        });
    let server = ReactiveServer::start(ServerSettings::new(brokers, "greetings"), service).await?;
    println!("serving kafka:greetings/hello and kafka:greetings/numbers/sum; Enter ends it");
    let (entered, enter) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || entered.send(std::io::stdin().read_line(&mut String::new())));
    enter.await??;
    let unfinished = server.shutdown(std::time::Duration::from_secs(5)).await;
    println!("{unfinished} requests were not finished");
    Ok(())
}
