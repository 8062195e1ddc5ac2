//! The workflows: an integer goes in, every step and every workflow returns a small object.

use segno::Ctx;
use serde::{Deserialize, Serialize};

/// What a step returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StepOutput {
    step: u32,
    value: u32,
}

/// What a workflow returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    input: u32,
    steps: u32,
    sum: u64,
}

impl Outcome {
    /// What a workflow of so many steps must answer: each step adds the input and its own number.
    pub(crate) fn expected(input: u32, steps: u32) -> Self {
        let (n, count) = (u64::from(input), u64::from(steps));
        Self {
            input,
            steps,
            sum: n * count + count * count.saturating_sub(1) / 2,
        }
    }
}

pub(crate) async fn zero(ctx: Ctx, input: u32) -> segno::Result<Outcome> {
    run(&ctx, input, 0).await
}

pub(crate) async fn one(ctx: Ctx, input: u32) -> segno::Result<Outcome> {
    run(&ctx, input, 1).await
}

pub(crate) async fn ten(ctx: Ctx, input: u32) -> segno::Result<Outcome> {
    run(&ctx, input, 10).await
}

async fn run(ctx: &Ctx, input: u32, steps: u32) -> segno::Result<Outcome> {
    let mut sum = 0;
    for step in 0..steps {
        let output = ctx
            .step("add", move || async move {
                let value = input + step;
                Ok(StepOutput { step, value })
            })
            .await?;
        sum += u64::from(output.value);
    }
    Ok(Outcome { input, steps, sum })
}
