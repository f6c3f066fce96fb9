"""The parts that the three scripts are made of; imports run one way: scripts -> models, utils."""
