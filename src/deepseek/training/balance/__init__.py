"""Keeping experts evenly used while a model trains: balance losses, loss-free bias, capacity, and the report of load.

Nothing here changes a model's code: `RoutingTraining` watches the routers of the model it is given.
"""

from deepseek.training.balance.balance_config import BalanceConfig
from deepseek.training.balance.capacity import CapacityConfig
from deepseek.training.balance.load import LayerLoad
from deepseek.training.balance.routing_training import RoutingTraining

__all__ = ["BalanceConfig", "CapacityConfig", "LayerLoad", "RoutingTraining"]
