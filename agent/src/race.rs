//! `select!`: the first of several durable calls, and the same one after a recovery.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::Error;
use crate::execution::{CURRENT, Execution, Place};
use crate::recorder::Effect;

const NAME: &str = "DBOS.select";

/// Waits for the first of several durable calls and runs its arm. Which one it was is recorded: a
/// recovered run takes the same arm, whatever would be first then.
///
/// The other calls are dropped. A message that one of them had taken at that very moment goes back to its
/// topic.
///
/// ```
/// # use std::time::Duration;
/// # use segno::Ctx;
/// async fn approved(ctx: Ctx, amount: u64) -> segno::Result<bool> {
///     let approved = segno::select! {
///         answer = ctx.recv::<bool>("approval").timeout(Duration::from_secs(600)) => answer.unwrap_or(false),
///         _ = ctx.sleep(Duration::from_secs(60)) => amount < 100,
///     };
///     Ok(approved)
/// }
/// ```
#[macro_export]
macro_rules! select {
    (@arms $race:ident [$($arms:tt)*] $pattern:pat = $call:expr => $body:expr, $($rest:tt)+) => {
        $crate::select!(@arms $race [$($arms)* { call output ($pattern) ($call) ($body) }] $($rest)+)
    };
    (@arms $race:ident [$($arms:tt)*] $pattern:pat = $call:expr => $body:expr $(,)?) => {
        $crate::select!(@run $race [$($arms)* { call output ($pattern) ($call) ($body) }])
    };
    (@run $race:ident [$({ $future:ident $output:ident ($pattern:pat) ($call:expr) ($body:expr) })+]) => {{
        let mut $race = $crate::__private::Race::begin();
        $(
            let mut $future = $race.arm(::std::future::IntoFuture::into_future($call));
            let mut $output = ::std::option::Option::None;
        )+
        let winner = $race
            .first(&mut [$(&mut |context: &mut ::std::task::Context<'_>| {
                $crate::__private::poll(&mut $future, &mut $output, context)
            }),+])
            .await;
        $(::std::mem::drop($future);)+
        $race.record(winner).await;
        let mut arm = 0_usize;
        $(if { arm += 1; arm - 1 == winner } && let ::std::option::Option::Some($output) = $output {
            let $pattern = $output;
            $body
        } else)+ {
            ::std::unreachable!("the arm that won has an output")
        }
    }};
    ($($arms:tt)+) => {
        $crate::select!(@arms race [] $($arms)+)
    };
}

/// A call in a race.
type Arm<F> = Pin<Box<F>>;

/// Polls a call and keeps its output.
pub fn poll<F: Future>(
    call: &mut Arm<F>,
    output: &mut Option<F::Output>,
    context: &mut Context<'_>,
) -> Poll<()> {
    call.as_mut()
        .poll(context)
        .map(|value| *output = Some(value))
}

/// Polls a call without knowing its type.
type Poller<'a> = dyn FnMut(&mut Context<'_>) -> Poll<()> + Send + 'a;

/// A race under way; `select!` makes it.
pub struct Race {
    execution: Arc<Execution>,
    /// Positions that the arms took, each up to the beginning of the next.
    begins: Vec<i32>,
    /// That of the race itself.
    position: Option<i32>,
    replayed: bool,
    started_at: i64,
}

impl Race {
    /// Outside of a workflow there is nothing to record a race in.
    ///
    /// # Panics
    /// There.
    pub fn begin() -> Self {
        let Ok(execution) = CURRENT.try_with(Arc::clone) else {
            panic!("`segno::select!` works only in a workflow; use `tokio::select!` elsewhere");
        };
        Self {
            begins: vec![execution.next_position()],
            started_at: execution.now_ms(),
            execution,
            position: None,
            replayed: false,
        }
    }

    /// Adds a call, which has taken its positions.
    pub fn arm<F: Future>(&mut self, call: F) -> Arm<F> {
        self.begins.push(self.execution.next_position());
        Box::pin(call)
    }

    /// The number of the first call to complete, or that on record, which is waited for alone.
    pub async fn first(&mut self, arms: &mut [&mut Poller<'_>]) -> usize {
        let position = self.execution.take_position();
        let (position, recorded) = self.execution.replay_or_misuse(position, NAME).await;
        self.position = Some(position);
        let recorded = recorded.and_then(|recorded| recorded.output);
        let winner = match recorded.map(|text| text.parse::<usize>()) {
            Some(Ok(winner)) if winner < arms.len() => Some(winner),
            Some(_) => {
                let error =
                    Error::serialization("recorded winner of `select!`", "there is no such arm");
                return self.execution.fail(error).await;
            }
            None => None,
        };
        self.replayed = winner.is_some();
        std::future::poll_fn(|context| {
            for (index, arm) in arms.iter_mut().enumerate() {
                if winner.is_none_or(|winner| winner == index) && arm(context).is_ready() {
                    return Poll::Ready(index);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Records the winner, after the other calls were dropped.
    pub async fn record(&self, winner: usize) {
        let Some(position) = self.position.filter(|_| !self.replayed) else {
            return;
        };
        let losers = (0..self.begins.len().saturating_sub(1)).filter(|arm| *arm != winner);
        let effect = Effect::GiveBack(losers.flat_map(|arm| self.positions(arm)).collect());
        let output = winner.to_string();
        let place = Place::Own(position);
        let recorded = self
            .execution
            .effect(place, NAME, self.started_at, Some(&output), effect)
            .await;
        if let Err(error) = recorded {
            self.execution.fail(error).await
        }
    }

    fn positions(&self, arm: usize) -> Range<i32> {
        match self.begins.get(arm..arm + 2) {
            Some([begin, end]) => *begin..*end,
            _ => 0..0,
        }
    }
}

impl std::fmt::Debug for Race {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Race").finish_non_exhaustive()
    }
}
