//! Facts and findings of a gateway: each is kept, correlated, published and logged, in this order.

use std::sync::{Arc, MutexGuard, PoisonError};

use systole_core::{Span, session};

use super::Gateway;
use crate::correlation::{Correlation, Findings};
use crate::events::{Body, Event};
use crate::report::{Fact, Parting};

impl Gateway {
    /// Processes a fact: keeps its verdict, correlates it, publishes it as an event and logs it.
    /// Call [`crate::events::Events::wake`] after a batch.
    pub fn note(&self, fact: Fact) {
        let in_order = self.in_order();
        self.keep_verdict(&fact);
        let findings = self.correlation.handle_fact(&fact);
        let event = self.events.publish(fact);
        let found = self.publish_findings(findings);
        drop(in_order);
        self.logs.event(&event);
        found.iter().for_each(|event| self.logs.event(event));
    }

    /// Publishes and logs what `correlate` finds.
    fn note_findings(&self, correlate: impl FnOnce(&Correlation) -> Findings) {
        let in_order = self.in_order();
        let found = self.publish_findings(correlate(&self.correlation));
        drop(in_order);
        found.iter().for_each(|event| self.logs.event(event));
        self.events.wake();
    }

    fn in_order(&self) -> MutexGuard<'_, ()> {
        self.in_order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs correlation: answers its questions about siblings, and handles its deadlines. Never
    /// ends; only the first call answers questions.
    pub async fn correlate(&self) {
        let taken = self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ask = async {
            let Some(mut questions) = taken else {
                return std::future::pending().await;
            };
            while let Some(question) = questions.recv().await {
                let (heard_ago, suspect) = self.query_siblings(&question.siblings).await;
                let session = question.session;
                self.note_findings(|it| it.handle_siblings(session, heard_ago, suspect));
            }
        };
        let expire = async {
            loop {
                self.correlation.wait_for_deadline().await;
                self.note_findings(Correlation::handle_deadline);
            }
        };
        tokio::join!(ask, expire);
    }

    /// Returns how long ago any of these sessions was last heard, and whether one is suspect.
    async fn query_siblings(&self, sessions: &[u64]) -> (Option<Span>, bool) {
        let (mut heard_ago, mut suspect) = (None, false);
        for session in sessions.iter().filter(|session| **session != 0) {
            if let Ok(Some(info)) = self.session(*session).await {
                let ago = Span::from_millis(info.last_heard_ago_ms);
                heard_ago = Some(heard_ago.map_or(ago, |known: Span| known.min(ago)));
                suspect |= info.suspect;
            }
        }
        (heard_ago, suspect)
    }

    /// Publishes findings. The caller logs them.
    fn publish_findings(&self, findings: Findings) -> Vec<Arc<Event>> {
        let publish = |(at_ms, body)| {
            self.metrics.count(&body);
            if let Body::VerdictRevised { revision, .. } = &body {
                let (session, cause, confidence, note) = *revision.kept;
                self.verdicts.revise(session, cause, confidence, note);
            }
            self.events.publish_body(at_ms, body)
        };
        findings.into_iter().map(publish).collect()
    }

    /// Keeps the verdict of a leave. Called before the event is published, since a subscriber may
    /// ask for the verdict at once.
    pub(super) fn keep_verdict(&self, fact: &Fact) {
        if let session::Event::Left(verdict) = &fact.event {
            let Parting { lasted, flight, .. } = &fact.parting;
            let subject = fact.subject.clone();
            self.verdicts.keep(fact.at_ms, subject, *verdict, *lasted, flight.clone());
        }
    }
}
