//! Client of Predict with tonic: classifies the images of a file, one byte a value.
//!
//!     cargo run -- TARGET FILE [VERSION]

use std::error::Error;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use mlpserve::prediction_service_client::PredictionServiceClient;
use mlpserve::{DataType, GetModelRequest, ImageBatch, PredictRequest, PredictResponse};

mod mlpserve {
    tonic::include_proto!("mlpserve.v1");
}

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ATTEMPTS: u32 = 5;

struct Prediction {
    label: String,
    probability: f32,
    model: String,
    version: i64,
}

/// Sends a request, and again while no server is available, for about two seconds: all rpcs are
/// idempotent.
async fn predict_with_retries(
    client: &mut PredictionServiceClient<Channel>,
    request: PredictRequest,
) -> Result<PredictResponse, Status> {
    let mut delay = Duration::from_millis(100);
    for _ in 1..MAX_ATTEMPTS {
        match client.predict(request.clone()).await {
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(delay).await;
                delay *= 2;
            }
            answer => return answer.map(|answer| answer.into_inner()),
        }
    }
    client.predict(request).await.map(|answer| answer.into_inner())
}

/// Classifies images of one byte a value, image after image in `data`. Version 0 leaves the version
/// to the server.
async fn predict(
    client: &mut PredictionServiceClient<Channel>,
    data: Vec<u8>,
    model_version: i64,
) -> Result<Vec<Prediction>, Status> {
    let described = client.get_model(GetModelRequest::default()).await?.into_inner();
    let version = described
        .model
        .and_then(|model| model.versions.into_iter().next())
        .ok_or_else(|| Status::not_found("the model has no version"))?;
    let values_per_image: usize = version.input_shape.iter().map(|&size| size as usize).product();
    let count = data.len() / values_per_image;
    let request = PredictRequest {
        model_version,
        images: Some(ImageBatch {
            count: count as u32,
            data_type: DataType::Uint8 as i32,
            data: data.into(),
        }),
        ..Default::default()
    };
    let answer = predict_with_retries(client, request).await?;
    let labels = answer.labels.chunks_exact(4).map(|bytes| {
        i32::from_le_bytes(bytes.try_into().expect("four bytes a label")) as usize
    });
    let rows = answer.probabilities.chunks_exact(4 * version.class_labels.len());
    let predictions = labels.zip(rows).map(|(label, row)| {
        let bytes = &row[4 * label..4 * label + 4];
        Prediction {
            label: version.class_labels[label].clone(),
            probability: f32::from_le_bytes(bytes.try_into().expect("four bytes a probability")),
            model: answer.model_name.clone(),
            version: answer.model_version,
        }
    });
    Ok(predictions.collect())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() < 3 {
        eprintln!("usage: mlpserve-client TARGET FILE [VERSION]");
        std::process::exit(2);
    }
    let data = std::fs::read(&arguments[2])?;
    let version = arguments.get(3).map_or(Ok(0), |text| text.parse())?;
    let channel = Endpoint::from_shared(format!("http://{}", arguments[1]))?
        .timeout(TIMEOUT)
        .connect_lazy();
    let mut client = PredictionServiceClient::new(channel);
    match predict(&mut client, data, version).await {
        Ok(predictions) => {
            for (image, found) in predictions.iter().enumerate() {
                println!(
                    "image {image}: {} ({:.2} %), {} version {}",
                    found.label,
                    100.0 * found.probability,
                    found.model,
                    found.version
                );
            }
            Ok(())
        }
        Err(status) => {
            eprintln!("{:?}: {}", status.code(), status.message());
            std::process::exit(1);
        }
    }
}
