//! Facts and findings of a gateway: each is kept, correlated, published and logged, in this order.

use std::sync::{Arc, MutexGuard, PoisonError};

use systole_core::session;

use super::Gateway;
use crate::correlation::{Correlation, Findings, QUESTIONS};
use crate::events::{Body, Event};
use crate::report::Fact;
use crate::store::Noted;

impl Gateway {
    /// Processes a fact: keeps its verdict, correlates it, publishes it as an event and logs it.
    /// Call [`crate::events::Events::wake`] after a batch.
    pub fn note(&self, mut fact: Fact) {
        let in_order = self.in_order();
        self.verdicts.complete(&mut fact);
        self.keep_verdict(&fact);
        let findings = self.correlation.handle_fact(&fact);
        let event = self.events.publish(fact);
        self.write(&event);
        let found = self.publish_findings(findings);
        drop(in_order);
        self.logs.event(&event);
        found.iter().for_each(|event| self.logs.event(event));
    }

    /// Has an event written for those who are told. Called in the order of the events.
    fn write(&self, event: &Event) {
        let noted = self.store.as_ref().and_then(|store| Some((store, Noted::of(event)?)));
        if let Some((store, noted)) = noted {
            store.note(noted);
        }
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
            let mut asked = Vec::new();
            while questions.recv_many(&mut asked, QUESTIONS).await > 0 {
                for seen in self.look_at_siblings(&asked).await {
                    self.note_findings(|it| it.handle_siblings(&seen));
                }
                asked.clear();
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

    /// Publishes findings. The caller logs them.
    fn publish_findings(&self, findings: Findings) -> Vec<Arc<Event>> {
        let publish = |(at_ms, body)| {
            self.metrics.count(&body);
            if let Body::VerdictRevised { revision, .. } = &body {
                let (session, cause, confidence, note) = *revision.kept;
                self.verdicts.revise(session, cause, confidence, note);
            }
            let event = self.events.publish_body(at_ms, body);
            self.write(&event);
            event
        };
        findings.into_iter().map(publish).collect()
    }

    /// Keeps the verdict of a leave, or on the link of a session that is away. Called before the
    /// event is published, since a subscriber may ask for the verdict at once.
    pub(super) fn keep_verdict(&self, fact: &Fact) {
        let Fact { at_ms, subject, event, parting, .. } = fact;
        if let session::Event::Left(verdict) = event {
            self.verdicts.keep(*at_ms, subject.clone(), *verdict, parting);
        } else if let session::Event::Away { verdict, .. } = event {
            self.verdicts.lose(*at_ms, subject.clone(), *verdict, parting);
        } else if let session::Event::Resumed { .. } = event {
            self.verdicts.forget_lost(subject.session);
        }
    }
}
