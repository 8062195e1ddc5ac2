//! Customers: a steady stream of new checkouts.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::IndexedRandom;
use segno::{Db, Segno};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::shop::{BAD_CARD, acknowledge};
use crate::workflow::{Order, checkout};

const SKUS: [&str; 5] = [
    "espresso-machine",
    "grinder",
    "kettle",
    "scale",
    "beans-1kg",
];

/// How many and which.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Checkouts a second; 0 for none.
    pub(crate) rate: f64,
    /// Checkouts that are started at once, before the stream.
    pub(crate) first: u32,
    /// Share of customers whose card is declined.
    pub(crate) declined: f64,
    /// Checkouts of this process that may be open at a time; above that, customers wait.
    pub(crate) open: usize,
    /// Beginning of the workflow ids.
    pub(crate) prefix: String,
}

impl Load {
    /// Runs until dropped.
    pub(crate) async fn run(self, app: Segno, db: Db) {
        let places = Arc::new(Semaphore::new(self.open.max(1)));
        let mut number = 0;
        for _ in 0..self.first {
            number += 1;
            self.submit(&app, &db, number, &places).await;
        }
        if self.rate <= 0.0 {
            return;
        }
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / self.rate));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            number += 1;
            self.submit(&app, &db, number, &places).await;
        }
    }

    /// The cart's id is the workflow's: a customer who clicks twice joins the same run.
    async fn submit(&self, app: &Segno, db: &Db, number: u64, places: &Arc<Semaphore>) {
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return;
        };
        let id = format!("{}-{number}", self.prefix);
        let handle = match app.start(checkout, self.order()).id(id.clone()).await {
            Ok(handle) => handle,
            Err(error) => {
                tracing::warn!(%id, %error, "a checkout could not be started");
                return;
            }
        };
        if let Err(error) = acknowledge(db, &id).await {
            tracing::warn!(%id, %error, "a start could not be noted");
        }
        tokio::spawn(async move {
            match handle.await {
                Ok(receipt) => {
                    tracing::debug!(%id, order = receipt.order_id, charge = receipt.charge_id, "done")
                }
                Err(error) => tracing::debug!(%id, %error, "not done"),
            }
            drop(place);
        });
    }

    fn order(&self) -> Order {
        let mut rng = rand::rng();
        let declined = rand::random::<f64>() < self.declined;
        Order {
            sku: (*SKUS.choose(&mut rng).unwrap_or(&SKUS[0])).to_owned(),
            quantity: rand::random_range(1..4),
            cents: rand::random_range(500..50_000),
            card: if declined {
                BAD_CARD
            } else {
                "4242 4242 4242 4242"
            }
            .to_owned(),
            email: format!("{}@example.com", Uuid::new_v4().simple()),
        }
    }
}
