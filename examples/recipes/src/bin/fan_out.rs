//! Fan-out over a queue: one workflow for a whole library, one child for each book, four at a time, and no more than
//! fifty new ones a second, in however many processes.
//!
//! ```sh
//! cargo run --bin fan_out
//! DATABASE_URL=postgres://localhost/books cargo run --bin fan_out    # and once more in another terminal
//! ```

use std::time::Duration;

use segno::{Builder, Ctx, Queue, Segno};
use serde::{Deserialize, Serialize};

const QUEUE: &str = "books";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Book {
    title: String,
    text: String,
}

/// Counts the words of all books. What cannot be counted is left out, by its title.
#[segno::workflow]
async fn count_library(ctx: Ctx, books: Vec<Book>) -> segno::Result<(usize, Vec<String>)> {
    let titles: Vec<String> = books.iter().map(|book| book.title.clone()).collect();
    let counts = ctx
        .start_all(count_book, books)
        .queue(QUEUE)
        .results()
        .await;
    let mut words = 0;
    let mut left_out = Vec::new();
    for (title, count) in titles.into_iter().zip(counts) {
        match count {
            Ok(count) => words += count,
            Err(_) => left_out.push(title),
        }
    }
    Ok((words, left_out))
}

#[segno::workflow]
async fn count_book(ctx: Ctx, book: Book) -> segno::Result<usize> {
    ctx.step("count", || async {
        match book.text.split_whitespace().count() {
            0 => Err(segno::Error::message("an empty book")),
            words => Ok(words),
        }
    })
    .max_attempts(2)
    .interval(Duration::from_millis(50))
    .await
}

fn library() -> Builder {
    Segno::named("library")
        .queue(
            Queue::new(QUEUE)
                .concurrency(4)
                .rate_limit(50, Duration::from_secs(1)),
        )
        .workflows(segno::workflows![count_library, count_book])
}

fn books() -> Vec<Book> {
    let book = |number: usize| Book {
        title: format!("Volume {number}"),
        text: "word ".repeat(number % 5),
    };
    (1..=12).map(book).collect()
}

#[tokio::main]
async fn main() -> segno::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://library.db".into());
    let app = library().database_url(url).launch().await?;
    let (words, left_out) = app.run(count_library, books()).await?;
    println!("{words} words; left out: {}", left_out.join(", "));
    app.shutdown(Duration::from_secs(5)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use segno::testing;

    use super::*;

    #[tokio::test]
    async fn every_crash_is_survived() {
        let few = || books().into_iter().take(5).collect::<Vec<_>>();
        let trials = || testing::crash_everywhere(library, count_library, few());
        let counted = (10, vec!["Volume 5".to_owned()]);
        assert_eq!(trials().await.unwrap(), counted);
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        assert_eq!(trials().on_postgres(postgres).await.unwrap(), counted);
    }

    #[tokio::test]
    async fn a_book_survives_every_crash() {
        let trials = || testing::crash_everywhere(library, count_book, books().remove(2));
        assert_eq!(trials().await.unwrap(), 3);
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        assert_eq!(trials().on_postgres(postgres).await.unwrap(), 3);
    }
}
