"""The order desk as a FastAPI application on the async front-end."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from fastapi_toolsets.db import create_db_dependency
from fastapi_toolsets.models import EventSession

from .models import Base, Order


class NewOrder(BaseModel):
    """An order to import."""

    number: str
    customer: str
    item: str
    quantity: int


class ImportResult(BaseModel):
    """How an import went: the numbers of the orders that the database refused."""

    refused: list[str]


class OrderChanges(BaseModel):
    """New values of an order; what is left out stays as it is."""

    status: Literal["new", "paid", "shipped"] = "new"
    quantity: int = 1
    note: str | None = None


class OrderOut(BaseModel, from_attributes=True):
    """An order as it stands."""

    number: str
    customer: str
    item: str
    quantity: int
    status: str


def create_app(engine: AsyncEngine) -> FastAPI:
    """Build the application.

    Args:
        engine: Where the orders are kept. The application makes the table when it starts, and disposes of the engine
            when it stops.

    Returns:
        An application that delivers an event to the callbacks for every order it commits.
    """
    session_factory = async_sessionmaker(engine, expire_on_commit=False, class_=EventSession)
    database_session = Depends(create_db_dependency(session_factory))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        try:
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            yield
        finally:
            await engine.dispose()

    app = FastAPI(title="Order desk", lifespan=lifespan)

    @app.post("/orders/import")
    async def import_orders(orders: list[NewOrder], session: Annotated[EventSession, database_session]) -> ImportResult:
        refused: list[str] = []
        for order in orders:
            try:
                async with session.begin_nested():
                    session.add(Order(**order.model_dump()))
            except IntegrityError:  # only this order's savepoint is rolled back
                refused.append(order.number)
        return ImportResult(refused=refused)

    @app.patch("/orders/{number}")
    async def change_order(
        number: str, changes: OrderChanges, session: Annotated[EventSession, database_session]
    ) -> OrderOut:
        order = await find_order(session, number)
        for field, value in changes.model_dump(exclude_unset=True).items():
            setattr(order, field, value)
        try:
            await session.flush()
        except IntegrityError as error:
            raise HTTPException(409, f"order {number} cannot be changed like that") from error
        return OrderOut.model_validate(order)

    @app.delete("/orders/{number}", status_code=204)
    async def cancel_order(number: str, session: Annotated[EventSession, database_session]) -> None:
        await session.delete(await find_order(session, number))

    @app.get("/orders")
    async def list_orders(session: Annotated[EventSession, database_session]) -> list[OrderOut]:
        orders = await session.scalars(select(Order).order_by(Order.number))
        return [OrderOut.model_validate(order) for order in orders]

    return app


async def find_order(session: EventSession, number: str) -> Order:
    """Return the order with this number.

    Raises:
        HTTPException: There is none (404).
    """
    order = await session.scalar(select(Order).where(Order.number == number))
    if order is None:
        raise HTTPException(404, f"there is no order {number}")
    return order
