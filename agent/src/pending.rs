//! Durable calls that take options until they are first polled.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;

type Begin<'a, O, T> = Box<dyn FnOnce(O) -> BoxFuture<'a, T> + Send + 'a>;

/// A call that may still be given options `O`, or that runs and yields `T`.
pub(crate) enum Pending<'a, O, T> {
    Configuring(O, Begin<'a, O, T>),
    Running(BoxFuture<'a, T>),
    Done,
}

impl<'a, O, T> Pending<'a, O, T> {
    pub(crate) fn new<F>(options: O, begin: impl FnOnce(O) -> F + Send + 'a) -> Self
    where
        F: Future<Output = T> + Send + 'a,
    {
        Self::Configuring(options, Box::new(move |options| Box::pin(begin(options))))
    }

    /// Changes an option. Builder methods are only reachable before the first poll.
    pub(crate) fn configure(mut self, change: impl FnOnce(&mut O)) -> Self {
        if let Self::Configuring(options, _) = &mut self {
            change(options);
        }
        self
    }
}

// Nothing is pinned inside: options are moved out, the future is boxed.
impl<O, T> Unpin for Pending<'_, O, T> {}

impl<O, T> Future for Pending<'_, O, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        loop {
            match std::mem::replace(&mut *self, Self::Done) {
                Self::Configuring(options, begin) => *self = Self::Running(begin(options)),
                Self::Running(mut future) => {
                    let poll = future.as_mut().poll(cx);
                    if poll.is_pending() {
                        *self = Self::Running(future);
                    }
                    return poll;
                }
                Self::Done => return Poll::Pending,
            }
        }
    }
}

/// Makes types futures that wrap one, and prints them by their name.
macro_rules! durable_call {
    ($($name:ident<$lifetime:lifetime $(, $parameter:ident)?> -> $output:ty),+ $(,)?) => {$(
        impl<$lifetime $(, $parameter)?> std::future::Future for $name<$lifetime $(, $parameter)?> {
            type Output = $output;

            fn poll(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                std::pin::Pin::new(&mut self.0).poll(cx)
            }
        }

        impl<$lifetime $(, $parameter)?> std::fmt::Debug for $name<$lifetime $(, $parameter)?> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}

pub(crate) use durable_call;
