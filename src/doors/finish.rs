//! What was begun is finished, also when whoever asked for it hangs up.
//!
//! hyper drops a request's future when its connection ends. Between a commit and what follows from it (an ended grant leaves the token
//! table, a link is shown as it is now, a failed log-in is counted) that would leave half of it undone. So our own endpoints are served by
//! tasks of their own. Calls at gateway and relay are not: they end with their caller. (An operator's `p2pid call`, being a request of the
//! admin API, is waited for until its answer begins.)

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio_util::task::TaskTracker;

/// `routes`, whose requests are served to their end among those of `under_way`.
pub fn to_the_end(routes: Router, under_way: &TaskTracker) -> Router {
    routes.layer(middleware::from_fn_with_state(under_way.clone(), serve))
}

async fn serve(State(under_way): State<TaskTracker>, request: Request, next: Next) -> Response {
    match under_way.spawn(next.run(request)).await {
        Ok(response) => response,
        // Answered where all panics of requests are.
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::body::Body;
    use axum::routing;
    use tokio::sync::{mpsc, oneshot};
    use tower_service::Service;

    use super::*;

    #[tokio::test]
    async fn a_request_whose_sender_is_gone_is_served_to_its_end() {
        let under_way = TaskTracker::new();
        let (go_on, told) = oneshot::channel::<()>();
        let (begun, mut begins) = mpsc::channel::<()>(1);
        let (done, is_done) = oneshot::channel();
        let parts = Arc::new(Mutex::new(Some((told, done))));
        let handler = move || async move {
            let (told, done) = parts.lock().expect("no panic").take().expect("one request");
            begun.send(()).await.expect("the test listens");
            let _ = told.await;
            done.send(()).expect("the test listens");
            "done"
        };
        let mut routes = to_the_end(Router::new().route("/", routing::post(handler)), &under_way);
        let mut answer = Box::pin(routes.call(Request::post("/").body(Body::empty()).expect("a request")));
        tokio::select! {
            _ = &mut answer => panic!("it waits"),
            _ = begins.recv() => drop(answer),
        }
        assert_eq!(under_way.len(), 1);
        go_on.send(()).expect("it goes on");
        is_done.await.expect("it was served to its end");
    }
}
