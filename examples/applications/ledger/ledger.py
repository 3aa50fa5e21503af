"""Expenses of a small office: an ordinary Flask app, written for `flask run`. It knows nothing of Cask."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from flask import Flask, Response, abort, flash, redirect, render_template, request, send_from_directory, url_for
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.utils import secure_filename

SUMMARY_SECONDS = 0.5


class Base(DeclarativeBase):
    pass


class User(UserMixin, Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]


class Expense(Base):
    __tablename__ = "expenses"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    what: Mapped[str]
    cents: Mapped[int]
    receipt: Mapped[str] = mapped_column(default="")
    at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


class Summary(threading.Thread):
    """Adds all expenses up now and then, as many an app does something in the background."""

    def __init__(self, engine) -> None:
        super().__init__(name="summary", daemon=True)
        self._engine, self._stop, self.cents = engine, threading.Event(), 0

    def run(self) -> None:
        while not self._stop.wait(SUMMARY_SECONDS):
            with Session(self._engine) as session:
                self.cents = session.scalar(select(func.sum(Expense.cents))) or 0


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ.get("LEDGER_SECRET_KEY") or os.environ.get("SECRET_KEY") or os.urandom(24)
    receipts = Path(os.environ.get("LEDGER_RECEIPTS", "receipts"))
    receipts.mkdir(parents=True, exist_ok=True)
    engine = create_engine(os.environ.get("LEDGER_DATABASE", "sqlite:///ledger.db"), connect_args={"timeout": 10})
    Base.metadata.create_all(engine)
    summary = Summary(engine)
    summary.start()

    login = LoginManager(app)
    login.login_view = "sign_in"

    @login.user_loader
    def load_user(user_id: str) -> User | None:
        with Session(engine) as session:
            return session.get(User, int(user_id))

    @app.route("/sign-in", methods=["GET", "POST"])
    def sign_in():
        if request.method == "GET":
            return render_template("sign_in.html")
        name, password = request.form["name"], request.form["password"]
        with Session(engine, expire_on_commit=False) as session:
            user = session.scalar(select(User).where(User.name == name))
            if user is None:
                user = User(name=name, password=generate_password_hash(password))
                session.add(user)
                session.commit()
        if not check_password_hash(user.password, password):
            flash("The password is another one.")
            return render_template("sign_in.html"), 403
        login_user(user)
        return redirect(url_for("expenses"))

    @app.post("/sign-out")
    @login_required
    def sign_out():
        logout_user()
        return redirect(url_for("sign_in"))

    @app.get("/")
    @login_required
    def expenses():
        with Session(engine) as session:
            rows = session.scalars(select(Expense).where(Expense.user_id == current_user.id)).all()
            return render_template("expenses.html", rows=rows, total=summary.cents)

    @app.post("/expenses")
    @login_required
    def add():
        file, receipt = request.files.get("receipt"), ""
        if file and file.filename:
            receipt = f"{current_user.id}-{secure_filename(file.filename)}"
            file.save(receipts / receipt)
        cents = round(float(request.form["amount"]) * 100)
        with Session(engine) as session:
            session.add(Expense(user_id=current_user.id, what=request.form["what"], cents=cents, receipt=receipt))
            session.commit()
        return redirect(url_for("expenses"))

    @app.get("/receipts/<name>")
    @login_required
    def receipt(name: str):
        if not name.startswith(f"{current_user.id}-"):
            abort(404)
        return send_from_directory(receipts.absolute(), name)

    @app.get("/export.csv")
    @login_required
    def export():
        user_id = current_user.id

        def lines() -> Iterator[str]:
            yield "at,what,cents\n"
            with Session(engine) as session:
                for row in session.scalars(select(Expense).where(Expense.user_id == user_id)):
                    yield f"{row.at:%Y-%m-%d},{row.what},{row.cents}\n"

        return Response(lines(), mimetype="text/csv")

    return app
